"""Compiles the server that is written in C."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("COMPILER", "FLOOR", "compiled_floor")

FLOOR = "floor"
"""The name that stands for it where a module of `benchmarks.servers` is expected."""

COMPILER = "cc"
SOURCE = Path(__file__).parent / "servers" / "floor.c"


@contextmanager
def compiled_floor() -> Iterator[Path]:
    """Compile `floor.c`; the program exists during the block."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "floor"
        options = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program))
        subprocess.run([COMPILER, *options, str(SOURCE)], check=True)
        yield program
