"""Event loops, servers and the check that a test leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.secrecy import Eavesdropper, watch_credentials
from wshub.testing import server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

pytest_plugins = ["wshub.testing.fixtures", "tests.brokers.fixtures", "tests.fake_broker"]

IMPLEMENTATIONS: tuple[str, ...] = ("websockets-sansio", "wsproto", "websockets")
if "WSHUB_TEST_WS" in os.environ:  # pragma: no cover  (measured without)
    # `.ci/run fanout`: the whole suite on another implementation.
    IMPLEMENTATIONS = (os.environ["WSHUB_TEST_WS"],)
    server.DEFAULTS["ws"] = os.environ["WSHUB_TEST_WS"]


def _new_eager_loop() -> asyncio.AbstractEventLoop:  # pragma: no cover (Python 3.12 and later)
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    return loop


VARIANTS = ("redis-sharded", "nats-plain")
"""Kinds of brokers whose servers, and most of what talks to them, are those of another kind."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Leave out tests of what only uvicorn's own implementations do, if another is tested.

    Outages, which take seconds each, are for one kind of each server unless slow tests run.
    """
    for item in items:
        if item.path.name == "test_outages.py" and any(name in item.name for name in VARIANTS):
            item.add_marker(pytest.mark.slow)
    if "WSHUB_TEST_WS" in os.environ:  # pragma: no cover  (measured without)
        left_out = [item for item in items if item.get_closest_marker("stock_server")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
    **({"eager": _new_eager_loop} if sys.version_info >= (3, 12) else {}),
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every asynchronous test on every event loop, or on one if that is all it needs."""
    if item.get_closest_marker("browser") or item.get_closest_marker("one_loop"):
        return {"asyncio": asyncio.new_event_loop}
    return LOOPS


@pytest.fixture(params=IMPLEMENTATIONS)
def ws(request: pytest.FixtureRequest) -> str:
    """Each of uvicorn's WebSocket implementations in turn."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def tidy(nothing_left_behind: None) -> None:
    """Every test leaves nothing behind."""


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Eavesdropper]:
    """No test's secret shows in a log, at whatever level an app may choose for ours."""
    watch_credentials(monkeypatch)
    eavesdropper = Eavesdropper()
    loggers = {
        logging.getLogger("wshub"): logging.DEBUG,
        logging.getLogger("uvicorn"): logging.INFO,
    }
    levels = {logger: logger.level for logger in loggers}
    for logger, level in loggers.items():
        logger.setLevel(level)
    logging.getLogger().addHandler(eavesdropper)
    yield eavesdropper
    logging.getLogger().removeHandler(eavesdropper)
    for logger, level in levels.items():
        logger.setLevel(level)
    assert eavesdropper.heard == []


@pytest.fixture(autouse=True)
def own_filters() -> Iterator[None]:
    """What a test, or a page that it runs, does to uvicorn's loggers is taken back."""
    loggers = [logging.getLogger(name) for name in ("uvicorn.access", "uvicorn.error")]
    before = [logger.filters[:] for logger in loggers]
    yield
    for logger, filters in zip(loggers, before, strict=True):
        logger.filters[:] = filters
