"""TLS handshakes in memory, between what two sides have on disk or in hand."""

import ssl
from pathlib import Path


def server(certificate: Path, key: Path, trusted: bytes) -> ssl.SSLContext:
    """A server that asks for a client certificate, trusting what it read at its start."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    made.load_verify_locations(cadata=trusted.decode())
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def client(certificate: Path, key: Path, trusted: Path) -> ssl.SSLContext:
    """A client with its files as they are now."""
    made = ssl.create_default_context(cafile=str(trusted))
    made.load_cert_chain(certificate, key)
    return made


def shake(asking: ssl.SSLContext, serving: ssl.SSLContext, name: str) -> str:
    """The client's common name as the server saw it. Raises ``ssl.SSLError``."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    answering = serving.wrap_bio(to_server, to_client, server_side=True)
    peer = asking.wrap_bio(to_client, to_server, server_hostname=name)
    for end in (peer, answering, peer, answering):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    subject = dict(pair[0] for pair in (answering.getpeercert() or {})["subject"])
    return subject["commonName"]
