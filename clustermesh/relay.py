"""``clustermesh-relay SOCKET``: standard input and output become a connection to a unix socket.

meshctl has it run in a pod, as ``kubectl exec`` would, to ask a process what that answers on its
own socket only. One line on standard output says that the socket is there; what follows are the
socket's bytes. It ends with either side. It starts once for a few questions: nothing of the
project, and little else, is imported.
"""

import os
import select
import socket
import sys

GREETING = b"clustermesh-relay 1\n"
"""The number is that of this protocol."""
PIECE = 1 << 16


def main() -> None:
    """The console script."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: clustermesh-relay SOCKET")
    try:
        relay(sys.argv[1], sys.stdin.fileno(), sys.stdout.fileno())
    except BrokenPipeError:
        return  # who asked has gone
    except OSError as error:
        sys.exit(f"clustermesh-relay: {sys.argv[1]}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)


def relay(path: str, asker: int, listener: int) -> None:
    """From the descriptor ``asker`` to the socket, from there to ``listener``. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as process:
        process.connect(path)
        _write(listener, GREETING)
        ends: list[int | socket.socket] = [asker, process]
        while True:
            readable, _, _ = select.select(ends, [], [])
            if process in readable:
                piece = process.recv(PIECE)
                if not piece:
                    return
                _write(listener, piece)
            if asker in readable:
                piece = os.read(asker, PIECE)
                if not piece:
                    return
                process.sendall(piece)


def _write(descriptor: int, piece: bytes) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]


if __name__ == "__main__":
    main()
