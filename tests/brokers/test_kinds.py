"""Where a server for tests comes from, and what happens where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.brokers.fixtures import demand
from tests.brokers.kinds import POSTGRES

ABSENT = replace(
    POSTGRES,
    variable="WSHUB_TEST_ABSENT_URL",
    requires="WSHUB_REQUIRE_ABSENT",
    missing="there is none",
)


@pytest.mark.parametrize("own", [False, True])
def test_a_server_that_is_missing(monkeypatch: pytest.MonkeyPatch, *, own: bool) -> None:
    """Tests are skipped, or fail where all of them have to run."""
    with pytest.raises(pytest.skip.Exception, match="there is none"):
        demand(ABSENT, own=own)
    monkeypatch.setenv("WSHUB_REQUIRE_ABSENT", "1")
    with pytest.raises(pytest.fail.Exception, match="there is none"):
        demand(ABSENT, own=own)


def test_a_server_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is used, but for the tests that would hurt it."""
    monkeypatch.setenv("WSHUB_TEST_ABSENT_URL", "postgresql://localhost")
    demand(ABSENT)
    with pytest.raises(pytest.skip.Exception):
        demand(ABSENT, own=True)
