"""Engines that carry messages between workers."""

from wshub.backends._urls import backend_from_url
from wshub.backends.base import Backend, Deliver, Health, OneTimeKeys, Receiver
from wshub.backends.memory import MemoryBackend
from wshub.backends.nats import NatsBackend
from wshub.backends.one_time_keys import MemoryOneTimeKeys
from wshub.backends.postgres import PostgresBackend
from wshub.backends.redis import RedisBackend
from wshub.backends.redis_one_time_keys import RedisOneTimeKeys

__all__ = (
    "Backend",
    "Deliver",
    "Health",
    "MemoryBackend",
    "MemoryOneTimeKeys",
    "NatsBackend",
    "OneTimeKeys",
    "PostgresBackend",
    "Receiver",
    "RedisBackend",
    "RedisOneTimeKeys",
    "backend_from_url",
)
