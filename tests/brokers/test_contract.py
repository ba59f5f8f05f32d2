"""Every backend does what managers rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wshub.backends import MemoryBackend
from wshub.testing.backends import BackendContract

if TYPE_CHECKING:
    from tests.brokers.kinds import Broker, Kind
    from wshub.backends import Backend


class TestMemory(BackendContract):
    """In memory a worker is alone."""

    shared = False

    def make(self, prefix: str) -> Backend:
        return MemoryBackend()


class TestBrokers(BackendContract):
    """Each kind of broker carries messages between workers."""

    max_payload = 50_000

    @pytest.fixture(autouse=True)
    def use(self, kind: Kind, broker: Broker) -> None:
        self.kind, self.url = kind, broker.url
        self.has_common_order = kind.has_common_order

    def make(self, prefix: str) -> Backend:
        return self.kind.make(self.url, prefix=prefix, max_payload=self.max_payload)
