"""One neighbour: its session, what goes out to it and comes in from it, and how it fares. Both sides use it alike."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from flop_p2p.errors import WireError
from flop_p2p.transport.base import (
    Body,
    BodyReceived,
    Connected,
    Delivered,
    Left,
    LinkStatus,
    Lost,
    OutgoingBody,
    Peer,
    Progress,
    Said,
    Silent,
)
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.incoming import Incoming
from flop_p2p.transport.outgoing import Outgoing
from flop_p2p.transport.routes import LinkError, Route, Way
from flop_p2p.transport.session import Session, clock_skew
from flop_p2p.transport.throttle import Throttle
from flop_p2p.wire import (
    MAX_FRAMES,
    AnyMessage,
    Credit,
    Decline,
    Descriptor,
    Goodbye,
    Heartbeat,
    Participants,
    Present,
    Receipt,
    Silence,
)
from flop_p2p.wire.encodings import Masked

logger = logging.getLogger("flop_p2p.transport")

ANSWER_RATE = 1.0  # a second: refusals, and requests for a greeting, that one neighbour gets
ANSWER_BURST = 10.0  # of them at once
LINE_RATE = 0.1  # a second: lines of the log that tell of one neighbour's losses
LINE_BURST = 20.0  # of them at once


@dataclass
class _Current:
    """The connection that a session runs over, and what belongs to it alone.

    ended: told when the neighbour is lost or left.
    renew: asked for a new session when this one has served its rounds.
    began: round of the first body, either way, under the keys of this session; None before it.
    heard: monotonic time of the last sign of life.
    """

    way: Way
    outgoing: Outgoing
    incoming: Incoming
    ended: Callable[[], None]
    renew: Callable[[], None]
    tasks: tuple[asyncio.Task[None], ...] = ()
    began: int | None = None
    heard: float = field(default_factory=time.monotonic)


class Link:
    """The state of one neighbour over all its connections."""

    def __init__(self, hub: Hub, peer: Peer) -> None:
        self.peer, self.name = peer, peer.name
        self.status = LinkStatus()
        self._hub = hub
        self._throttle = Throttle()
        self._answers = Throttle(ANSWER_RATE, ANSWER_BURST)
        self._lines = Throttle(LINE_RATE, LINE_BURST)
        self._answered = -math.inf  # monotonic time of the last answer to a heartbeat
        self._current: _Current | None = None

    @property
    def way(self) -> Way | None:
        """The connection of the session, None while there is no session."""
        return None if self._current is None else self._current.way

    @property
    def idle(self) -> bool:
        """Nothing is left to send or to be acknowledged."""
        return self._current is None or self._current.outgoing.idle

    def establish(
        self, session: Session, way: Way, *, ended: Callable[[], None], renew: Callable[[], None] = lambda: None
    ) -> None:
        """Begin a session; on the same connection as the last it only renews the keys. See `_Current`."""
        self.status.clock_skew = clock_skew(session.greeting)
        if self._current is not None and self._current.way == way:
            self._current.outgoing.sealer = session.sealer
            self._current.incoming.renew(session.opener)
            self._current.began = None
            return
        self.forget()
        outgoing = Outgoing(self._hub, self.name, way.bulk, self.status, session.sealer)
        self._current = _Current(way, outgoing, Incoming(self._hub, session.opener), ended, renew)
        self._current.tasks = tuple(
            self._hub.spawn(self._guard(self._current, work))
            for work in (outgoing.run, partial(self._receive, self._current), partial(self._beat, self._current))
        )
        self.status.state, self.status.reason, self.status.last_contact = "connected", "", time.time()
        self._hub.emit(Connected(self.name, session.greeting))

    def send(self, outgoing: OutgoingBody) -> None:
        """Queue a body, if there is a session."""
        if self._current is not None:
            self._current.outgoing.offer(outgoing)

    def post(self, message: AnyMessage) -> None:
        """Send a message, if there is a session.

        Raises:
            EgressError: it cannot be recorded; it was not sent.
        """
        if self._current is not None:
            try:
                self._hub.post(self.name, message, self._current.way.control, self.status)
            except LinkError as error:
                self._break(str(error))

    def say(self, message: AnyMessage) -> None:
        """Send a message, if there is a session; what has to wait for the disk waits beside the event loop."""
        if (current := self._current) is not None:
            post = partial(self._hub.post_safely, self.name, message, current.way.control, self.status)
            self._hub.spawn(self._guard(current, post))

    def ping(self) -> None:
        """Send a sign of life now: if the neighbour's connection is gone, it is lost at once."""
        self.post(Heartbeat(round=self._hub.round_index, sent=time.monotonic(), echo=0.0))

    def tell_silence(self) -> None:
        """Tell from which round on this node sends no bodies, if it does not."""
        if self._hub.silent_from is not None:
            self.post(Silence(round=self._hub.silent_from))

    def read(self, parts: Sequence[memoryview]) -> AnyMessage | None:
        """The message in ``parts``, None where too many come for another to be looked at; see `Hub.read`."""
        if not self._throttle.allows():
            self.drop("more messages than any node needs to send")
            return None
        return self._hub.read(self.name, parts, self.status)

    def answer(self, message: AnyMessage, route: Route) -> None:
        """Say why, or that, there is no session; rarely, as each answer costs a line of the egress log.

        Raises:
            EgressError: it cannot be recorded; it was not sent.
        """
        if self._answers.allows():
            with suppress(LinkError):  # whoever asked is gone already
                self._hub.post(self.name, message, route, self.status)

    def message(self, message: AnyMessage) -> None:
        """Take a message of the session.

        Raises:
            WireError: it makes no sense now.
        """
        current = self._current
        if current is None:
            return
        self._heard(current)
        if isinstance(message, Heartbeat):
            self._heartbeat(message)
        elif isinstance(message, Credit):
            current.outgoing.credit(message.chunks)
            self._throttle.allow_another()  # a fast link has many, each for frames of ours
        elif isinstance(message, Receipt):
            current.outgoing.receipt(message.round, message.chain)
            self._hub.emit(Delivered(self.name, message.round))
            self._renew_in_time(current, message.round)
        elif isinstance(message, Silence):
            self._hub.emit(Silent(self.name, message.round))
        elif isinstance(message, Goodbye):
            self._leave(message, current)
        elif isinstance(message, Present | Participants | Decline) and self._hub.masked:
            self._hub.emit(Said(self.name, message))
        else:
            raise WireError(f"a {message.kind} message at the wrong time")

    def frame(self, header: bytes, sealed: memoryview) -> None:
        """Take a frame of the session. It is opened when those before it are."""
        current = self._current
        if current is None:
            return
        self.status.received_bytes += len(header) + sealed.nbytes
        if not current.incoming.arrived(header, sealed):
            self.drop("more frames than were credited")

    def taken(self) -> None:
        """The node has taken the body that was complete; the neighbour may send on."""
        if self._current is not None:
            self._current.incoming.untaken = max(0, self._current.incoming.untaken - 1)
            self._give_credit()

    def drop(self, reason: str) -> None:
        """Something malformed, altered or foreign came in the neighbour's name."""
        self.status.dropped_frames += 1
        self._hub.complain(self.name, f"dropped: {reason}")

    def fail(self, reason: str, *, refused: bool) -> None:
        """An attempt to connect or a greeting came to nothing."""
        self._hub.complain(self.name, reason)
        if self._current is None:
            self.status.reason = reason
            if refused:
                self.status.state = "refused"

    def lose(self, reason: str) -> None:
        """The neighbour can no longer be reached."""
        if self._current is None:
            return
        self.forget()
        self.status.state, self.status.reason = "lost", reason
        if self._lines.allows():
            logger.warning("%s: lost (%s)", self.name, reason)
        self._hub.emit(Lost(self.name, reason))

    def forget(self) -> None:
        """End the session without a word."""
        current, self._current = self._current, None
        for task in current.tasks if current is not None else ():
            if task is not asyncio.current_task():
                task.cancel()

    def _break(self, reason: str) -> None:
        """Lose the neighbour, and let the owner of the connection know."""
        ended = self._current.ended if self._current is not None else lambda: None
        self.lose(reason)
        ended()

    async def _completed(self, current: _Current, descriptor: Descriptor, body: Body | Masked) -> None:
        self._hub.receipt(self.name, "body", descriptor.round, descriptor.chain)
        self._hub.emit(BodyReceived(self.name, descriptor.round, body, descriptor.participants))
        receipt = Receipt(round=descriptor.round, chain=descriptor.chain)
        await self._hub.post_safely(self.name, receipt, current.way.control, self.status)
        self._renew_in_time(current, descriptor.round)

    def _leave(self, goodbye: Goodbye, current: _Current) -> None:
        self.forget()
        self.status.state, self.status.reason = "left", ""
        self._hub.emit(Left(self.name, goodbye.last_round, goodbye.finished))
        current.ended()

    def _heard(self, current: _Current) -> None:
        current.heard = time.monotonic()
        self.status.last_contact = time.time()

    def _heartbeat(self, message: Heartbeat) -> None:
        if message.echo:
            self.status.latency = max(0.0, time.monotonic() - message.echo)
            return
        self._hub.emit(Progress(self.name, message.round))
        now = time.monotonic()
        if now - self._answered >= self._hub.gossip.heartbeat / 2:
            self._answered = now
            self.post(Heartbeat(round=self._hub.round_index, sent=now, echo=message.sent))

    def _renew_in_time(self, current: _Current, round_index: int) -> None:
        """Ask for fresh keys when a body of this round, the last of so many, has come or has been receipted."""
        if current.began is None:
            current.began = round_index
        used_up = current.outgoing.sealer.frames_left < MAX_FRAMES // 2
        if used_up or round_index - current.began + 1 >= self._hub.gossip.renew_keys_every:
            current.began = None
            current.renew()

    def _give_credit(self) -> None:
        if self._current is not None and (frames := self._current.incoming.credit()):
            self.post(Credit(chunks=frames))

    async def _receive(self, current: _Current) -> None:
        """Open the frames that arrived, one after the other, and hand out the bodies that they complete."""
        while self._current is current:
            try:
                completed = await current.incoming.next()
            except WireError as error:
                self.drop(str(error))
            except LinkError as error:
                self.drop(str(error))
                raise
            else:
                self._heard(current)
                if completed is not None:
                    await self._completed(current, *completed)
            self._give_credit()

    async def _beat(self, current: _Current) -> None:
        """Tell that this node lives, and notice when the neighbour does not."""
        gossip = self._hub.gossip
        self.tell_silence()
        while self._current is current:
            self.ping()
            await asyncio.sleep(gossip.heartbeat)
            if time.monotonic() - current.heard > gossip.lost_after:
                raise LinkError(f"no sign of life for {gossip.lost_after:g} s")
            current.incoming.check_progress()

    async def _guard(self, current: _Current, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (LinkError, WireError) as error:
            if self._current is current:  # or another connection has taken its place
                self._break(str(error))
