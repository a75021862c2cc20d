"""Log lines are for people or machines, their level changes at run time, and nobody waits."""

import io
import json
import logging
import threading

import pytest

from clustermesh import logs


def lines(stream: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object() -> None:
    stream = io.StringIO()
    with logs.running(level="info", form="auto", stream=stream):
        logs.get_logger().info("peer connected", cluster="paris")
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {"event": "peer connected", "level": "info", "cluster": "paris"}


def test_the_level_changes_while_the_program_runs() -> None:
    stream = io.StringIO()
    with logs.running(level="warning", form="json", stream=stream) as control:
        log = logs.get_logger()
        log.info("one")
        control.set_level("debug")
        log.debug("two")
        with pytest.raises(ValueError, match="expected one of debug, info, warning, error"):
            control.set_level("loud")
        assert control.level == "debug"
    assert [line["event"] for line in lines(stream)] == ["two"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_is_no_text_is_told_all_the_same(form: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with logs.running(level="info", form=form, stream=stream):
        logs.get_logger().info("key", key="a\udcff", count=3)
    stream.flush()
    assert b"a\\udcff" in stream.buffer.getvalue().replace(b"\\\\", b"\\")


def test_people_get_text() -> None:
    stream = io.StringIO()
    with logs.running(level="info", form="console", stream=stream):
        logs.get_logger().info("peer connected", cluster="paris")
    assert "peer connected" in stream.getvalue()
    assert "cluster=paris" in stream.getvalue()


def test_warnings_of_libraries_come_along() -> None:
    stream = io.StringIO()
    with logs.running(level="info", form="json", stream=stream):
        logging.getLogger("grpc").warning("odd")
    assert lines(stream)[0]["logger"] == "grpc"


class Stuck(io.StringIO):
    """A stream that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait(30)
        return super().write(text)


def test_a_stuck_stream_drops_lines_and_says_how_many() -> None:
    stream = Stuck()
    with logs.running(level="info", form="json", stream=stream):
        log = logs.get_logger()
        for number in range(logs.QUEUE + 100):
            log.info("line", number=number)
        stream.go.set()
    written = stream.getvalue().splitlines()
    told = [line for line in written if line.endswith("lines of the log were dropped")]
    dropped = sum(int(line.split()[0]) for line in told)
    assert dropped >= 99
    assert dropped + len(written) - len(told) == logs.QUEUE + 100


def test_an_unexpected_error_of_a_library_is_told_with_its_place_in_one_line() -> None:
    stream = io.StringIO()
    with logs.running(level="info", form="json", stream=stream):
        try:
            json.loads("{")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told["event"] == "Exception in ASGI application"
    assert told["error"].startswith("JSONDecodeError(")
    assert "decoder.py" in told["raised"]
    assert "Traceback" not in line
