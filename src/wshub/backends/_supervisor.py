"""The backend that keeps a broker connected, and tells the truth when it is not."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from wshub._wire import Probe, Unreadable, read_envelope, write_envelope
from wshub.backends._broker import BrokerRefused, NothingSent, PromptBroker
from wshub.backends._deadline import Limit
from wshub.backends._outgoing import Outgoing, Outgoings, expire, settle
from wshub.backends._probes import Probes
from wshub.backends._problem import NO_ANSWER, describe, find_first
from wshub.backends._subscriptions import Subscriptions
from wshub.backends.base import Health
from wshub.events import BackendLost, BackendRegained
from wshub.exceptions import BackendRefused, BackendUnavailable, PayloadTooLarge
from wshub.messages import Publication

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wshub.backends._broker import Broker
    from wshub.backends._options import Options
    from wshub.backends.base import Receiver
    from wshub.messages import Audience, Envelope

__all__ = ("SupervisedBackend",)

logger = logging.getLogger("wshub")

PATIENCE = 2.0
"""Seconds that a server has for each answer; with the last of `PAUSES` less than five."""

PROBE_INTERVAL = 1.5
"""Seconds between two probes."""

PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5)
"""Seconds between two attempts to connect, at most; the last one from then on."""
STABLE = 5.0
"""Seconds after which a connection counts as good, and the next pause is the first again."""
CLOSING = 1.0
"""Seconds that a broker has to drop its connections."""


class SupervisedBackend:
    """
    Keeps a broker connected: connects, subscribes, probes, and begins again when that fails.

    A message is published at most once. While the server is away `publish()` waits for it, at
    most `publish_timeout` seconds, then raises `BackendUnavailable`. Every few seconds a worker
    sends itself a probe, so that a connection that has silently gone is noticed, too.
    """

    def __init__(self, broker: Broker, options: Options) -> None:
        options.check()
        self._broker = broker
        self._prompt = broker if isinstance(broker, PromptBroker) else None
        self._options = options
        self._name = type(self).__name__
        self._receiver: Receiver
        self._own_channel: str
        self._subscriptions = Subscriptions()
        self._outgoings = Outgoings()
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None]
        self._probed: Sequence[str] = ()
        self._probes = Probes(self._outgoings)
        self._heard_at = 0.0
        self._gap_began: float | None = None
        self._pauses = 0
        self._outages = 0
        self._turn("it is not started; pass lifespan=manager.lifespan to the app")

    def __repr__(self) -> str:
        return f"<{self._name} prefix={self._options.prefix!r} {self._problem or 'ready'}>"

    def attach(self, receiver: Receiver) -> None:
        """Take what the manager offers. Raises RuntimeError if it belongs to another already."""
        if hasattr(self, "_receiver"):
            raise RuntimeError(f"this {self._name} belongs to somebody else; make another one")
        self._receiver = receiver

    async def start(self) -> None:
        """
        Connect, or begin to try again and again.

        Returns after the first attempt, which takes a few seconds at most.

        Raises:
            BackendRefused: The server is there and refuses: the password is wrong, say.
            RuntimeError: It is started already.
        """
        if self._task is not None and not self._task.done():
            raise RuntimeError(f"this {self._name} is started already; one lifespan is enough")
        # Not any earlier: processes that are forked after that are workers of their own.
        self._own_channel = f"{self._options.prefix}:worker:{secrets.token_hex(8)}"
        self._outages = self._pauses = 0
        self._heard_at = time.monotonic()
        self._gap_began = None
        self._turn("it is connecting")
        self._outgoings.begin()
        started = self._started = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=f"wshub {self._name}")
        self._task.add_done_callback(self._settle)
        try:
            await started
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Drop the connections, promptly also while the server is away. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        self._turn("it is stopped")
        if not self._started.done():
            self._started.set_exception(self._unavailable())
        self._outgoings.end(self._unavailable)
        await asyncio.wait({task}, timeout=2 * CLOSING)

    async def publish(self, envelope: Envelope) -> None:
        """
        Take `envelope` for delivery in all workers; return when the server has taken it.

        Cancelling withdraws it, unless it is on its way already.

        Raises:
            BackendUnavailable: It was not taken within `publish_timeout` seconds. Nothing was
                published, unless the error is `uncertain`.
            PayloadTooLarge: It is over `max_payload`. Nothing was published.
        """
        payload = write_envelope(envelope)
        if len(payload) > self._longest():
            raise PayloadTooLarge(len(payload), self._longest())
        if self._task is None:
            raise self._unavailable()
        outgoing = self._put(self._channel_of(envelope), payload)
        taken = outgoing.taken
        # What asyncio.timeout() does, without its price: messages are many.
        timer = taken.get_loop().call_later(self._options.publish_timeout, expire, taken)
        try:
            await taken
        except TimeoutError:
            raise self._unavailable(uncertain=outgoing.sent) from None
        except BackendUnavailable:
            raise
        except Exception as error:
            raise BackendUnavailable(self._name, describe(error), uncertain=True) from error
        finally:
            timer.cancel()
            self._outgoings.withdraw(outgoing)

    def subscribe(self, audience: Audience, name: str) -> None:
        """Begin to deliver what is published to an audience, as soon as the server is there."""
        self._subscriptions.want(self._channel(audience, name))

    def unsubscribe(self, audience: Audience, name: str) -> None:
        """Deliver no longer what is published to an audience."""
        self._subscriptions.give_up(self._channel(audience, name))

    async def subscribed(self, audience: Audience, name: str) -> None:
        """Wait until a subscription is in effect, or the server is lost. May be cancelled."""
        await self._subscriptions.in_effect(self._channel(audience, name))

    def health(self) -> Health:
        """Say whether messages travel between workers now."""
        seconds = time.monotonic() - self._since
        return Health(self._problem is None, self._name, self._problem, seconds, self._outages)

    def _longest(self) -> int:
        return self._options.max_payload

    def _channel(self, audience: Audience, name: str) -> str:
        prefix = self._options.prefix
        return f"{prefix}:{audience}:{name}" if name else f"{prefix}:{audience}"

    def _channel_of(self, envelope: Envelope) -> str:
        if isinstance(envelope, Publication):
            return self._channel(envelope.audience, envelope.name)
        if envelope.audience == "user":
            return self._channel("user", envelope.name)
        return self._channel("everyone", "")

    def _put(self, channel: str, payload: bytes) -> Outgoing:
        """Publish at once, if that is possible and nothing waits before it; or else queue it."""
        if self._prompt is not None and self._outgoings.is_served:
            with suppress(ConnectionError):  # then it waits in the queue, or fails from there
                taken = self._prompt.send(channel, payload)
                return Outgoing(channel, payload, taken, sent=True)
        return self._outgoings.put(channel, payload)

    def _unavailable(self, *, uncertain: bool = False) -> BackendUnavailable:
        problem = self._problem or NO_ANSWER
        return BackendUnavailable(self._name, problem, uncertain=uncertain)

    def _turn(self, problem: str | None) -> None:
        self._problem = problem
        self._since = time.monotonic()

    async def _run(self) -> None:
        """Connect again and again, until cancelled."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        while True:
            try:
                await self._serve()
            except Exception as error:  # drivers raise what they like; each ends the connection
                # A task group that fails at that moment keeps a cancellation to itself.
                if task.cancelling():
                    raise asyncio.CancelledError from error
                self._lose(find_first(error))
            finally:
                self._subscriptions.reset()
                await self._drop()
            pause = PAUSES[min(self._pauses, len(PAUSES) - 1)]
            self._pauses += 1
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311  (spreads the load)

    def _settle(self, task: asyncio.Task[None]) -> None:
        """Whatever ends the supervisor but a stop must not look like health."""
        if task.cancelled():
            if self._task is task:
                self._turn("its supervisor was cancelled")
        else:
            error = task.exception()
            self._turn(f"its supervisor has failed: {error!r}")
            logger.error("the supervisor of %s has failed", self._name, exc_info=error)

    async def _serve(self) -> None:
        """Connect, and work until something fails. Never returns."""
        async with Limit(PATIENCE):
            await self._broker.connect()
        for channel in self._probed:
            self._subscriptions.give_up(channel)
        self._probed = self._broker.spread(self._own_channel)
        for channel in self._probed:
            self._subscriptions.want(channel)
        self._subscriptions.begin()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive(), name=f"wshub {self._name} receives")
            await self._follow()
            tasks.create_task(self._send(), name=f"wshub {self._name} sends")
            tasks.create_task(self._follow_on(), name=f"wshub {self._name} subscribes")
            await self._probes.send(self._probed, PATIENCE)
            self._regain()
            while True:
                await asyncio.sleep(PROBE_INTERVAL)
                await self._probes.send(self._probed, PATIENCE)

    async def _follow(self) -> None:
        await self._subscriptions.follow(self._subscribe, self._unsubscribe)

    async def _follow_on(self) -> None:
        while True:
            await self._subscriptions.change()
            await self._follow()

    async def _subscribe(self, channels: Sequence[str]) -> None:
        async with self._behind_what_arrives():
            await self._broker.subscribe(channels)

    async def _unsubscribe(self, channels: Sequence[str]) -> None:
        async with self._behind_what_arrives():
            await self._broker.unsubscribe(channels)

    def _behind_what_arrives(self) -> Limit:
        """Return a limit for an answer that may come on the connection that listens."""
        return Limit(PATIENCE, lambda: self._probes.received)

    async def _send(self) -> None:
        while True:
            batch = await self._outgoings.take()
            try:
                async with Limit(PATIENCE):
                    await self._broker.publish([(one.channel, one.payload) for one in batch])
            except NothingSent:
                self._outgoings.put_back(batch)
                raise
            except BaseException:
                settle(batch, lambda: self._unavailable(uncertain=True))
                raise
            settle(batch)

    async def _receive(self) -> None:
        while True:
            data = await self._broker.receive()
            self._probes.received += 1
            self._heard_at = time.monotonic()
            try:
                envelope = read_envelope(data)
            except Unreadable as error:
                logger.debug("%s skips an envelope: %s", self._name, error)
                self._receiver.skip(error.reason)
                continue
            if isinstance(envelope, Probe):
                self._probes.hear(envelope)
                continue
            try:
                await self._receiver.deliver(envelope)
            except Exception:  # the server between the workers has no part in it
                logger.exception("%s failed to deliver an envelope", self._name)

    def _regain(self) -> None:
        self._turn(None)
        if not self._started.done():
            self._started.set_result(None)
        if self._gap_began is not None:
            gap, self._gap_began = time.monotonic() - self._gap_began, None
            logger.warning("%s is back after %.1f seconds", self._name, gap)
            self._receiver.report(BackendRegained(self._name, gap))

    def _lose(self, error: Exception) -> None:
        problem = describe(error)
        if isinstance(error, BrokerRefused) and not self._started.done():
            self._started.set_exception(BackendRefused(self._name, problem))
            return
        if self._gap_began is not None:
            self._problem = problem  # `seconds` count on
            logger.debug("%s is still lost: %s", self._name, problem)
            return
        if time.monotonic() - self._since > STABLE:
            self._pauses = 0
        self._gap_began = self._heard_at
        self._outages += 1
        self._turn(problem)
        logger.warning("%s is lost, and tries again: %s", self._name, problem)
        logger.debug("%s was lost here", self._name, exc_info=error)
        if not self._started.done():
            self._started.set_result(None)
        self._receiver.report(BackendLost(self._name, problem))

    async def _drop(self) -> None:
        try:
            async with Limit(CLOSING):
                await self._broker.close()
        except Exception as error:
            logger.debug("%s could not close a connection", self._name, exc_info=error)
