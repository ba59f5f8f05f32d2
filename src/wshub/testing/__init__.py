"""What it takes to test an app with real servers, and with clients that misbehave."""

from wshub.testing.client import Client, Refusal, connect, refusal
from wshub.testing.clock import FakeClock, FakeTimer
from wshub.testing.deadline import until, wait_until
from wshub.testing.frames import Frame, Opcode, frame
from wshub.testing.raw import DeadClient, HalfOpenClient, RawClient, StalledClient
from wshub.testing.server import LiveServer, live_server
from wshub.testing.sink import FaultySink

__all__ = (
    "Client",
    "DeadClient",
    "FakeClock",
    "FakeTimer",
    "FaultySink",
    "Frame",
    "HalfOpenClient",
    "LiveServer",
    "Opcode",
    "RawClient",
    "Refusal",
    "StalledClient",
    "connect",
    "frame",
    "live_server",
    "refusal",
    "until",
    "wait_until",
)
