"""What it takes to test an app with real servers, and with clients that misbehave."""

from wshub.testing.clock import FakeClock, FakeTimer

__all__ = ("FakeClock", "FakeTimer")
