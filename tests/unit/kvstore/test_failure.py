"""Every status that etcd or gRPC gives has its word."""

import grpc
import pytest

from kvstore.client import (
    Conflict,
    Denied,
    HistoryLost,
    LeaseGone,
    OtherPast,
    Refused,
    StoreError,
    Unavailable,
)
from kvstore.failure import asks_for_new_token, breaks, sentence, translate

CODE = grpc.StatusCode


def status(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)


@pytest.mark.parametrize(
    ("code", "details", "word", "breaking"),
    [
        (CODE.UNAVAILABLE, "etcdserver: no leader", Unavailable, True),
        (CODE.UNAVAILABLE, "etcdserver: leader changed", Unavailable, True),
        (CODE.UNAVAILABLE, "etcdserver: request timed out", Unavailable, False),
        (CODE.UNAVAILABLE, "Socket closed", Unavailable, True),
        (CODE.DEADLINE_EXCEEDED, "Deadline Exceeded", Unavailable, True),
        (CODE.UNKNOWN, "Stream removed", Unavailable, True),
        (CODE.INTERNAL, "Received RST_STREAM", Unavailable, True),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", Unavailable, False),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Unavailable, False),
        (CODE.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs 4)", Refused, False),
        (
            CODE.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision has been compacted",
            HistoryLost,
            False,
        ),
        (
            CODE.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision is a future revision",
            OtherPast,
            False,
        ),
        (CODE.PERMISSION_DENIED, "etcdserver: permission denied", Denied, False),
        (CODE.UNAUTHENTICATED, "etcdserver: invalid auth token", Denied, False),
        (CODE.INVALID_ARGUMENT, "etcdserver: user name is empty", Denied, False),
        (CODE.FAILED_PRECONDITION, "etcdserver: user name not found", Denied, False),
        (
            CODE.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            Denied,
            False,
        ),
        (CODE.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", Unavailable, False),
        (CODE.INVALID_ARGUMENT, "etcdserver: request is too large", Refused, False),
        (CODE.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request", Refused, False),
        (
            CODE.INVALID_ARGUMENT,
            "etcdserver: too many operations in txn request",
            Refused,
            False,
        ),
        (CODE.NOT_FOUND, "etcdserver: requested lease not found", LeaseGone, False),
        (CODE.FAILED_PRECONDITION, "etcdserver: user name already exists", Conflict, False),
        (CODE.UNIMPLEMENTED, "unknown service", Refused, False),
    ],
)
def test_a_status_becomes_one_word(
    code: grpc.StatusCode, details: str, word: type[StoreError], breaking: bool
) -> None:
    error = status(code, details)
    assert type(translate(error)) is word
    assert breaks(error) is breaking


def test_no_code_is_without_a_word() -> None:
    for code in grpc.StatusCode:
        assert isinstance(translate(status(code, "")), StoreError)


def test_which_failures_are_worth_a_new_token() -> None:
    assert asks_for_new_token(status(CODE.UNAUTHENTICATED, "etcdserver: invalid auth token"))
    assert asks_for_new_token(
        status(CODE.INVALID_ARGUMENT, "etcdserver: revision of auth store is old")
    )
    assert asks_for_new_token(status(CODE.INVALID_ARGUMENT, "etcdserver: user name is empty"))
    assert not asks_for_new_token(status(CODE.PERMISSION_DENIED, "etcdserver: permission denied"))


@pytest.mark.parametrize(
    ("details", "told"),
    [
        (
            "failed to connect; last error: UNKNOWN: ipv4:127.0.0.1:1: connect: refused",
            "connect: refused",
        ),
        ("etcdserver: no leader", "etcdserver: no leader"),
        ("", "UNAVAILABLE"),
    ],
)
def test_an_operator_reads_the_end_of_the_story(details: str, told: str) -> None:
    assert sentence(details, CODE.UNAVAILABLE) == told


def test_a_deadline_is_said_in_plain_words() -> None:
    assert sentence("Deadline Exceeded", CODE.DEADLINE_EXCEEDED) == "no answer in time"
