"""The command `wshub`."""

from __future__ import annotations

import sys

from wshub.backends._driver import needing

__all__ = ("main",)


def main() -> None:
    """Run the command line; ends the process. Needs `pip install 'wshub[cli]'`."""
    try:
        with needing("the command wshub", "cli"):
            from wshub._command import run  # noqa: PLC0415  (typer is an extra)
    except ImportError as error:
        sys.exit(f"wshub: {error}")
    run()
