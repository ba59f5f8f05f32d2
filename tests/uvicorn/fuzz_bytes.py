"""
Clients that send what a fuzzer chooses: `python -m tests.uvicorn.fuzz_bytes -max_total_time=150`.

Takes the options of libFuzzer. Needs `pip install atheris`.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["wshub", "websockets", "uvicorn.protocols"]):
    from tests.uvicorn.victim import Victim


def main() -> None:
    """Run until the time is over, or an attack has an effect on others."""
    with asyncio.Runner() as runner:
        victim = runner.run(Victim().__aenter__())

        def attack(data: bytes) -> None:
            choices = atheris.FuzzedDataProvider(data)
            deflate, reads = choices.ConsumeBool(), choices.ConsumeBool()
            floods = choices.ConsumeIntInRange(0, 15) == 0
            early = choices.ConsumeBytes(choices.ConsumeIntInRange(0, 64))
            pieces = []
            while choices.remaining_bytes():
                pieces.append(choices.ConsumeBytes(choices.ConsumeIntInRange(1, 2000)))
            runner.run(
                victim.suffer(pieces, deflate=deflate, early=early, reads=reads, floods=floods)
            )

        atheris.Setup(sys.argv, attack)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
