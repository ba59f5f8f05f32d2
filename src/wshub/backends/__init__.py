"""Engines that carry messages between workers."""

from wshub.backends.base import Backend, Deliver, OneTimeKeys
from wshub.backends.memory import MemoryBackend
from wshub.backends.one_time_keys import MemoryOneTimeKeys

__all__ = ("Backend", "Deliver", "MemoryBackend", "MemoryOneTimeKeys", "OneTimeKeys")
