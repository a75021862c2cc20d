"""A client in a pod: asks echo servers and says, as JSON, what it saw. Standard library only.

``client.py ask tcp|udp ADDRESS PORT COUNT TIMEOUT``   so many questions, a new socket for each
``client.py hold tcp|udp ADDRESS PORT``                one socket, a question every 20 ms, until
                                                       standard input ends
``client.py each TIMEOUT``                               the questions on standard input: a JSON
                                                       list of [tcp|udp, ADDRESS, PORT, COUNT]
``client.py knock tcp|udp ADDRESS PORT TIMEOUT``       new sockets for ever, until input ends
"""

import json
import select
import socket
import sys
import time

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
PAUSE = 0.02


def connected(protocol, address, port, timeout):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, KINDS[protocol])
    made.settimeout(timeout)
    try:
        made.connect((address, port))
    except OSError:
        made.close()
        raise
    return made


def question(made, text):
    made.sendall(text.encode() + b"\n")
    reply = b""
    while not reply.endswith(b"\n"):
        part = made.recv(65536)
        if not part:
            raise ConnectionResetError("the server closed the connection")
        reply += part
    return json.loads(reply)


def one(protocol, address, port, timeout):
    began = time.monotonic()
    try:
        with connected(protocol, address, port, timeout) as made:
            answer = question(made, "hello")
            answer["sees"] = "{}:{}".format(*made.getpeername()[:2])
    except OSError as error:
        answer = {"error": type(error).__name__, "errno": error.errno, "text": str(error)}
    answer["seconds"] = time.monotonic() - began
    return answer


def input_ended():
    return bool(select.select([sys.stdin], [], [], PAUSE)[0])


def ask(protocol, address, port, count, timeout):
    return [one(protocol, address, int(port), float(timeout)) for _ in range(int(count))]


def each(timeout):
    return [ask(*question, timeout) for question in json.load(sys.stdin)]


def hold(protocol, address, port):
    answered, errors = 0, []
    with connected(protocol, address, int(port), 5.0) as made:
        first = question(made, "hello")
        sys.stdout.write(json.dumps(first) + "\n")
        sys.stdout.flush()
        while not input_ended():
            try:
                question(made, f"still there {answered}")
                answered += 1
            except OSError as error:
                errors.append(f"{type(error).__name__}: {error}")
                if len(errors) > 20:
                    break
    return {"answered": answered, "errors": errors}


def knock(protocol, address, port, timeout):
    answers = [one(protocol, address, int(port), float(timeout))]
    sys.stdout.write(json.dumps(answers[0]) + "\n")
    sys.stdout.flush()
    while not input_ended():
        answers.append(one(protocol, address, int(port), float(timeout)))
    return answers


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]
    modes = {"ask": ask, "each": each, "hold": hold, "knock": knock}
    json.dump(modes[mode](*arguments), sys.stdout)
