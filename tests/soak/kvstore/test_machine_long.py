"""The machine of the unit tests, for minutes and with other seeds each time."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.unit.kvstore.test_machine import Mesh


@pytest.mark.timeout(1800)
def test_nothing_is_lost_in_thousands_of_lives() -> None:
    run_state_machine_as_test(
        Mesh,
        settings=settings(
            max_examples=10_000,
            stateful_step_count=40,
            deadline=None,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
