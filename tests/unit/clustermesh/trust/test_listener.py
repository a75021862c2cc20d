"""The join listener over real TLS on loopback: who comes in between, too much, or at once."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from clustermesh import meshfile
from clustermesh.apiserver.joining import Joining
from clustermesh.apiserver.settings import Settings
from clustermesh.certificates import certificates_in
from clustermesh.http import Refused
from clustermesh.pki import Authority, KeyPair
from clustermesh.places.place import on_files
from clustermesh.trust.attempts import EACH
from clustermesh.trust.contact import Contact, Unreached
from clustermesh.trust.guest import Guest
from clustermesh.trust.listener import Listener, server_name
from clustermesh.trust.messages import LONGEST, JoinError
from tests.support.joining import Pair


class World(Pair):
    """A host's apiserver, as far as joining goes, listening on a port of loopback."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        self.mesh = top / "mesh-b.yaml"
        meshfile.save(meshfile.Mesh(clusters=(self.b,)), self.mesh)
        self.bound = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.bound.getsockname()[1]}"
        self.joining = Joining(
            Settings(
                cluster_name="cluster-b",
                cluster_id=2,
                etcd_config=top / "etcd.yaml",
                manifests=top,
                source="directory",
                state_dir=self.state,
                join_listen=self.address,
                join_mesh=self.mesh,
                cluster_users_config_path=self.b.users_file,
            ),
            lambda _: None,
        )

    async def token(self, guest: str = "cluster-a") -> str:
        made = await self.joining._create({"guest": guest, "hours": "1"})
        text: str = made["token"]  # type: ignore[index]  # as JSON
        return text

    def joined(self, text: str) -> Guest:
        """What ``meshctl join`` does, on the real clock."""
        guest = Guest(text, self.a, on_files(self.a), max_clusters=255)
        contact = Contact(guest.token)
        guest.verify(contact.meet())
        answer, finish = guest.accept(contact.join(guest.request()))
        contact.finish(finish)
        guest.connect(answer)
        return guest


@asynccontextmanager
async def running(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def serving(world: World) -> AbstractAsyncContextManager[None]:
    return running(world.joining.serve([world.bound]))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.bound.close()


async def test_a_guest_joins_over_the_wire(world: World):
    async with serving(world):
        await asyncio.to_thread(world.joined, await world.token())
        (listed,) = await world.joining._list({})  # type: ignore[misc]  # as JSON
        assert listed.state == "done"
    assert (world.a.config_dir / "cluster-b").exists()
    assert (world.b.config_dir / "cluster-a").exists()


async def test_of_many_who_come_at_once_with_one_token_exactly_one_gets_in(world: World):
    """Each has a key of its own."""
    many = 8

    def attempt(number: int) -> str:
        other = msgspec.structs.replace(world.cluster(f"thief-{number}", 1), name="cluster-a")
        guest = Guest(text, other, on_files(other), max_clusters=255)
        contact = Contact(guest.token)
        contact.meet()
        request = guest.request()
        ready.wait(timeout=30)
        try:
            contact.join(request)
        except JoinError as error:
            return str(error)
        return "in"

    async with serving(world):
        text, ready = await world.token(), threading.Barrier(many)
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(many) as threads:
            waiting = [loop.run_in_executor(threads, attempt, at) for at in range(many)]
            said = [await one for one in waiting]
    assert said.count("in") == 1
    assert all("used already" in one for one in said if one != "in"), said


async def between(world: World, pair: KeyPair, seen: list[bytes], bundle: bytes) -> None:
    """Somebody in between: answers every request with this bundle, and remembers what came."""
    pair.write(world.top / "m.crt", world.top / "m.key")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(world.top / "m.crt", world.top / "m.key")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(bundle) + bundle)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, sock=world.bound, ssl=tls)
    async with server:
        await server.serve_forever()


CASES = ["its own authority", "the real authority", "as an etcd of the same authority"]


@pytest.mark.parametrize("how", CASES)
async def test_nothing_is_sent_to_somebody_in_between(world: World, how: str):
    """The last has a certificate of the very authority, but not for the listener's name."""
    text = await world.token()
    mallory = Authority.create("cluster-b")
    pair = mallory.server(names=[server_name("cluster-b")])
    bundle = mallory.certificate if how == CASES[0] else world.b.ca_cert.read_bytes()
    if how == CASES[2]:
        pair = Authority.load(world.b.ca_cert, world.b.ca_key).server(["127.0.0.1"])
    seen: list[bytes] = []
    async with running(between(world, pair, seen, bundle)):
        with pytest.raises(JoinError, match="somebody is in between"):
            await asyncio.to_thread(world.joined, text)
    assert [line.split(b" ")[:2] for line in seen] == [[b"GET", b"/v1/trust"]]
    assert not (world.a.config_dir / "cluster-b").exists()


async def talk(world: World, content: bytes, *, end: bool = True) -> bytes:
    """What the listener says to these bytes; empty when it hangs up."""
    tls = ssl.create_default_context(cafile=str(world.b.ca_cert))
    host, port = world.address.split(":")
    name = server_name("cluster-b")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname=name)
    try:
        writer.write(content)
        await writer.drain()
        async with asyncio.timeout(30):
            return await reader.read(1 << 20)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"GET /v1/secrets HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /v1/trust HTTP/1.1\r\n\r\n", b"404"),
        (b"nonsense\r\n\r\n", b"404"),
        (b"GET /v1/trust HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n", b"400"),
        (b"POST /v1/join HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (LONGEST + 1), b"413"),
        (b"POST /v1/join HTTP/1.1\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n", b"413"),
        (b"POST /v1/join HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /v1/join HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"403"),
        (b"POST /v1/join HTTP/1.1\r\n\r\n", b"403"),
        (b"POST /v1/join HTTP/1.1\r\nContent-Length: 4\r\n\r\n\xff\xfe\x00\x00", b"403"),
    ],
)
async def test_a_request_that_is_none_is_answered_with_a_status(
    world: World, content: bytes, status: bytes
):
    async with serving(world):
        assert (await talk(world, content)).split(b" ")[1] == status
        assert b"BEGIN CERTIFICATE" in await talk(world, b"GET /v1/trust HTTP/1.1\r\n\r\n")


async def test_who_asks_for_the_authorities_makes_the_host_read_nothing(world: World):
    async with serving(world):
        asked = b"GET /v1/trust HTTP/1.1\r\n\r\n"
        assert b"BEGIN CERTIFICATE" in await talk(world, asked)
        world.b.ca_key.unlink()
        assert b"BEGIN CERTIFICATE" in await talk(world, asked)


async def test_who_guesses_is_stopped_after_a_few_tries(world: World):
    async with serving(world):
        wrong = b"POST /v1/join HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
        said = [(await talk(world, wrong)).split(b" ")[1] for _ in range(EACH + 2)]
        assert said == [b"403"] * EACH + [b"429"] * 2
        text = await world.token()
        with pytest.raises(Unreached, match=r"cluster-b refuses: too many attempts.*in a minute"):
            await asyncio.to_thread(world.joined, text)


async def test_plaintext_and_silence_get_no_answer(world: World):
    async with serving(world):
        reader, writer = await asyncio.open_connection(*world.address.split(":"))
        writer.write(b"GET /v1/trust HTTP/1.1\r\n\r\n")
        assert b"CERTIFICATE" not in await reader.read(1000)
        writer.close()


async def test_a_new_authority_is_used_without_a_restart(world: World):
    told: list[str] = []
    current = [Authority.create("old"), Authority.create("new")]
    listener = Listener(
        "cluster-b", {}, authority=lambda: current[0], told=lambda _, what: told.append(what)
    )
    listener.refresh()
    before = listener._loaded
    listener.refresh()
    assert listener._loaded == before
    current.pop(0)
    listener.refresh()
    assert listener._loaded == current[0].certificate != before
    assert listener.bundle == current[0].bundle


async def test_an_address_where_nobody_is_leads_to_the_next(world: World):
    async with serving(world):
        text = await world.token()
        guest = Guest(text, world.a, on_files(world.a), max_clusters=255)
        dead = msgspec.structs.replace(guest.token, addresses=("127.0.0.1:1", world.address))
        contact = Contact(dead)
        assert await asyncio.to_thread(contact.meet) == certificates_in(world.b.ca_cert)[0]
    nobody = msgspec.structs.replace(guest.token, addresses=("127.0.0.1:1",))
    with pytest.raises(Unreached, match="does not answer"):
        Contact(nobody).meet()
    for address in ("nonsense", "x:y", ":1"):
        with pytest.raises(JoinError, match="no host:port"):
            Contact(msgspec.structs.replace(guest.token, addresses=(address,))).meet()


@contextmanager
def another_server(tls: ssl.SSLContext | None, answer: bytes) -> Iterator[str]:
    """Its address; every request is answered alike."""
    with socket.create_server(("127.0.0.1", 0)) as bound:

        def serve() -> None:
            client, _ = bound.accept()
            with client, client.dup() as below:
                try:
                    inside = tls.wrap_socket(client, server_side=True) if tls else client
                    inside.recv(4096)
                    inside.sendall(answer)
                    inside.close()
                except ssl.SSLError:
                    while below.recv(4096):  # what is not read would take the alert along
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{bound.getsockname()[1]}"
        thread.join(30)


PLAIN, CLIENTS = b"speaks no TLS", b"wants a client certificate"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n404 page not found\n", "HTTP status 404"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP status 404"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://login/\r\n\r\n", "HTTP status 302"),
        (b"HTTP/1.1 503 Busy\r\n\r\n[1]", "HTTP status 503"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>Please log in</html>", "what is no certificate"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP"),
        (PLAIN, "does not speak TLS"),
        (CLIENTS, "client certificate, as an etcd does"),
    ],
)
async def test_another_server_is_told_from_a_join_listener(world: World, answer: bytes, said: str):
    """Whatever it answers, the operator learns that the address leads to somebody else."""
    text = await world.token()
    Authority.create("other").server().write(world.top / "o.crt", world.top / "o.key")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(world.top / "o.crt", world.top / "o.key")
    if answer == CLIENTS:
        tls.load_verify_locations(world.top / "o.crt")
        tls.verify_mode = ssl.CERT_REQUIRED
    with another_server(None if answer == PLAIN else tls, answer) as address:
        token = Guest(text, world.a, on_files(world.a), max_clusters=255).token
        other = msgspec.structs.replace(token, addresses=("127.0.0.1:1", address))
        with pytest.raises(Unreached) as failure:
            await asyncio.to_thread(Contact(other).meet)
    first, _, second = str(failure.value).partition("; ")
    assert "127.0.0.1:1 does not answer" in first
    assert second.startswith(address)
    assert said in second
    assert "that is no join listener" in second
    assert "run meshctl where" in second


async def test_an_answer_that_trickles_in_is_waited_for_no_longer_than_silence(world: World):
    """Before anything is agreed, and within an answer."""
    text = await world.token()
    pair = Authority.create("mallory").server()
    pair.write(world.top / "slow.crt", world.top / "slow.key")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(world.top / "slow.crt", world.top / "slow.key")

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            writer.write(b"\x16\x03\x03\x3f\xff" if plain else b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.transport.abort()
        done.set()

    done = asyncio.Event()
    for plain in (True, False):
        server = await asyncio.start_server(trickle, "127.0.0.1", 0, ssl=None if plain else tls)
        port = server.sockets[0].getsockname()[1]
        token = Guest(text, world.a, on_files(world.a), max_clusters=255).token
        slow = msgspec.structs.replace(token, addresses=(f"127.0.0.1:{port}",))
        with pytest.raises(Unreached, match=r"does not answer \(not in 0.5 s\)"):
            await asyncio.to_thread(Contact(slow, patience=0.5).meet)
        await done.wait()
        done.clear()
        server.close()
        await server.wait_closed()


async def test_the_operator_is_told_what_is_wrong(world: World):
    for query, said in (
        ({"guest": "cluster-a", "hours": "nan"}, "hours"),
        ({"guest": "cluster-a", "hours": "9999"}, "at most 7 days"),
        ({"guest": "../x"}, "no cluster name"),
        ({}, "no cluster name"),
    ):
        with pytest.raises(Refused, match=said):
            await world.joining._create(query)
    with pytest.raises(Refused, match="no such token"):
        await world.joining._revoke({"id": "../../x"})
    with pytest.raises(Refused, match="not a request to join"):
        await world.joining._offline({"token": "x"})
    other = msgspec.structs.replace(world.b, users_file=world.top / "other.yaml")
    meshfile.save(meshfile.Mesh(clusters=(other,)), world.mesh)
    with pytest.raises(Refused, match="keeps to --cluster-users-config-path"):
        await world.joining._create({"guest": "cluster-a"})
    world.mesh.write_text("clusters: []\n")
    with pytest.raises(Refused, match="no cluster 'cluster-b'"):
        await world.joining._create({"guest": "cluster-a"})
