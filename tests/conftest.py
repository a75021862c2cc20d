"""Coroutine tests on a real loop, hypothesis profiles, and markers by folder."""

import asyncio
import inspect
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("tests.support")

settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.register_profile(
    "soak", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

MARKERS = {
    "integration/kvstore": ("etcd",),
    "integration/apiserver": ("etcd",),
    "integration/agent": ("root",),
    "integration/bpf": ("root",),
    "integration/kvstoremesh": ("etcd",),
    "integration/lab": ("root",),
    "e2e": ("root", "etcd", "lab"),
    "soak": ("root", "etcd", "soak"),
}
_TESTS = Path(__file__).parent


def pytest_configure() -> None:
    """Tests press Ctrl-C: started in the background by a shell without job control (``nohup``, some
    CI), their processes would not hear it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = (
            item.path.relative_to(_TESTS).as_posix() if item.path.is_relative_to(_TESTS) else ""
        )
        for start, names in MARKERS.items():
            if folder.startswith(f"{start}/"):
                for name in names:
                    item.add_marker(name)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is a coroutine function runs on a fresh loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    with asyncio.Runner() as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True
