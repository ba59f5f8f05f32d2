"""Engines that carry messages between workers."""

from wshub.backends.base import Backend, Deliver
from wshub.backends.memory import MemoryBackend

__all__ = ("Backend", "Deliver", "MemoryBackend")
