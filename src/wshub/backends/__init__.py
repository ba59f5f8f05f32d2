"""Engines that carry messages between workers."""

from wshub.backends._urls import backend_from_url, one_time_keys_from_url
from wshub.backends.base import Backend, Deliver, Health, OneTimeKeys, Receiver
from wshub.backends.memory import MemoryBackend
from wshub.backends.nats import NatsBackend
from wshub.backends.nats_one_time_keys import NatsOneTimeKeys
from wshub.backends.one_time_keys import MemoryOneTimeKeys
from wshub.backends.postgres import PostgresBackend
from wshub.backends.postgres_one_time_keys import PostgresOneTimeKeys
from wshub.backends.redis import RedisBackend
from wshub.backends.redis_one_time_keys import RedisOneTimeKeys

__all__ = (
    "Backend",
    "Deliver",
    "Health",
    "MemoryBackend",
    "MemoryOneTimeKeys",
    "NatsBackend",
    "NatsOneTimeKeys",
    "OneTimeKeys",
    "PostgresBackend",
    "PostgresOneTimeKeys",
    "Receiver",
    "RedisBackend",
    "RedisOneTimeKeys",
    "backend_from_url",
    "one_time_keys_from_url",
)
