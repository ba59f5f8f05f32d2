"""io_uring: one system call that writes to many sockets."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import socket
import struct
import sys
import weakref
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ("Ring",)

ENTRIES = 256
"""Most writes of one system call; a power of two."""

UNKNOWN = -errno.ECANCELED
"""What `Ring.send()` returns for a socket that may have taken something, or nothing."""

LONGEST = 0x7FFFF000
"""Bytes that Linux takes at most in one write, write(2)."""

# linux/io_uring.h, whose numbers and structures no version changes.
_SETUP, _ENTER = 425, 426
_SUBMIT_ALL = 1 << 7
_GET_EVENTS = 1
_SEND = 26
_OFFSET_SQ, _OFFSET_CQ, _OFFSET_SQES = 0, 0x8000000, 0x10000000
_PARAMS = 30
_SQE = struct.Struct("BBHiQQIIQ24x")
_CQE_BYTES = 16
_WRAP = 0xFFFFFFFF

_MACHINES = ("x86_64", "aarch64")
"""Where the system calls have these numbers, and integers this order, for certain."""


class Ring:
    """
    Writes to sockets, for one thread of one process. Nothing is on its way between two calls.

    It has four descriptors, of itself and what is mapped, until it is let go.

    Attributes:
        is_broken: Whether it does not write any longer.

    Raises:
        OSError: The system has no io_uring, is older than Linux 5.18, or does not permit it.
    """

    def __init__(self) -> None:
        if sys.platform != "linux" or platform.machine() not in _MACHINES:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self.is_broken = False
        self._process = os.getpid()
        call = ctypes.CDLL(None, use_errno=True).syscall
        call.restype = ctypes.c_long
        self._call: Callable[..., int] = call
        params = (ctypes.c_uint32 * _PARAMS)()
        params[2] = _SUBMIT_ALL
        self._descriptor: int = self._call(_SETUP, ENTRIES, ctypes.byref(params))
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        weakref.finalize(self, os.close, self._descriptor)
        completions = params[1]
        sq_head, sq_tail, *_, sq_array = params[10:17]
        cq_head, cq_tail, _, _, _, cqes = params[20:26]
        submission = self._map(sq_array + 4 * ENTRIES, _OFFSET_SQ).cast("I")
        completion = self._map(cqes + _CQE_BYTES * completions, _OFFSET_CQ)
        entries = self._map(_SQE.size * ENTRIES, _OFFSET_SQES)
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        for slot in range(ENTRIES):
            submission[sq_array // 4 + slot] = slot
            _SQE.pack_into(entries, _SQE.size * slot, _SEND, 0, 0, 0, 0, 0, 0, flags, slot)
        self._order = [*range(ENTRIES), *range(ENTRIES)]
        self._completions = completions
        # One field of all entries each, so that a slice of them is set, or read, in one go.
        self._descriptors = entries.cast("i")[1 :: _SQE.size // 4]
        self._addresses = entries.cast("Q")[2 :: _SQE.size // 8]
        self._lengths = entries.cast("I")[6 :: _SQE.size // 4]
        self._slots = completion[cqes:].cast("Q")[:: _CQE_BYTES // 8]
        self._results = completion[cqes:].cast("i")[2 :: _CQE_BYTES // 4]
        self._taken = submission[sq_head // 4 : sq_head // 4 + 1]
        self._asked = submission[sq_tail // 4 : sq_tail // 4 + 1]
        heads = completion[: cqes // 4 * 4].cast("I")
        self._seen = heads[cq_head // 4 : cq_head // 4 + 1]
        self._done = heads[cq_tail // 4 : cq_tail // 4 + 1]

    def _map(self, size: int, offset: int) -> memoryview:
        return memoryview(mmap.mmap(self._descriptor, size, offset=offset))

    def send(self, runs: Sequence[tuple[Sequence[int], bytes]]) -> list[int]:
        """
        Write bytes to some sockets, others to others: `ENTRIES` writes at most.

        Returns:
            What each socket took, in order, or the negative number of an error, as
            `-errno.EAGAIN`. If it broke, some may be missing at the end, to which nothing was
            written, or `UNKNOWN`. So is everything if it breaks while it raises.
        """
        if os.getpid() != self._process:
            self.is_broken = True  # what it consists of is shared with the process that forked
            return []
        descriptors, addresses, lengths = array("i"), array("Q"), array("I")
        for some, data in runs:
            descriptors.extend(some)
            address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
            addresses += array("Q", (address,)) * len(some)
            lengths += array("I", (min(len(data), LONGEST),)) * len(some)
        count = len(descriptors)
        # From where the kernel is: what an earlier call left behind, if one failed, is not sent.
        start = self._taken[0] % ENTRIES
        _put(self._descriptors, start, descriptors)
        _put(self._addresses, start, addresses)
        _put(self._lengths, start, lengths)
        self._seen[0] = self._done[0]
        self._asked[0] = (self._taken[0] + count) & _WRAP
        self.is_broken = True  # unless all goes well; also if a signal's handler raises
        # None of these writes waits, so when it returns all are done.
        call = (_ENTER, self._descriptor, count, count, _GET_EVENTS, None, ctypes.c_size_t(0))
        taken = max(0, self._call(*call))
        seen = self._seen[0]
        done = (self._done[0] - seen) & _WRAP
        slots = _take(self._slots, seen % self._completions, done)
        results = _take(self._results, seen % self._completions, done)
        expected = self._order[start : start + taken]
        if slots != expected:
            found = dict(zip(slots, results, strict=True))
            results = [found.get(slot, UNKNOWN) for slot in expected]
        if done == taken == count:
            self.is_broken = False
        elif done < taken:
            _still_read.append((self, runs))
        return results


_still_read: list[object] = []
"""What the kernel may yet read, as it has not said that it is done: never, as far as we know."""


def _put(field: memoryview, start: int, values: array[int]) -> None:
    """Set a field of the entries from `start` on, and of the first ones behind the last."""
    fitting, rest = values[: ENTRIES - start], values[ENTRIES - start :]
    field[start : start + len(fitting)] = fitting
    field[: len(rest)] = rest


def _take(field: memoryview, start: int, count: int) -> list[int]:
    """Read a field of so many entries from `start` on, and of the first ones behind the last."""
    fitting = field[start : start + count].tolist()
    return fitting + field[: count - len(fitting)].tolist() if len(fitting) < count else fitting
