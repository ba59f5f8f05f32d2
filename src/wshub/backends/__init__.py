"""Engines that carry messages between workers."""

from wshub.backends._urls import backend_from_url
from wshub.backends.base import Backend, Deliver, Health, Receiver
from wshub.backends.memory import MemoryBackend
from wshub.backends.nats import NatsBackend
from wshub.backends.postgres import PostgresBackend
from wshub.backends.redis import RedisBackend

__all__ = (
    "Backend",
    "Deliver",
    "Health",
    "MemoryBackend",
    "NatsBackend",
    "PostgresBackend",
    "Receiver",
    "RedisBackend",
    "backend_from_url",
)
