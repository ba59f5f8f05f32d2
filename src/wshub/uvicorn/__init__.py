"""
The fast way out under uvicorn: ready-made frames, straight to the transport.

Choose it with `uvicorn main:app --ws wshub.uvicorn:FanoutProtocol`.
"""

from wshub.uvicorn._guard import check_uvicorn

check_uvicorn()

from wshub.uvicorn.protocol import FanoutProtocol  # noqa: E402  (what it builds on is checked)

__all__ = ("FanoutProtocol",)
