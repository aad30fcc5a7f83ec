"""What all links of a node share: who it is, whom it asks, where events go, and the one way out for a message."""

import asyncio
import hashlib
import logging
import re
from collections.abc import Coroutine, Sequence
from typing import Any

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.errors import EgressError, WireError
from flop_p2p.transport.base import Body, Egress, Event, Gate, LinkStatus
from flop_p2p.transport.routes import Route
from flop_p2p.wire import (
    AnyMessage,
    Decline,
    Goodbye,
    Greeting,
    Heartbeat,
    Participants,
    Present,
    Receipt,
    Silence,
    encode,
    envelope,
    open_envelope,
)
from flop_p2p.wire.encodings import Masked

logger = logging.getLogger("flop_p2p.transport")

NO_ROUND = -1
MAX_COMPLAINTS = 100  # different reasons that are logged about one neighbour
NOT_RECEIPTED = ("heartbeat", "credit")  # too many and too small to be worth a line at the receiver


class Hub:
    """The node's side of all its links.

    Attributes:
        masked: bodies leave and come masked only.
        round_index: what heartbeats tell.
        leaving: goodbye was said; nobody is greeted any more.
        silent_from: round from which no bodies are sent; None as long as they are.
        spare: received bodies that the node needs no more; the next ones are written over them.
    """

    def __init__(
        self,
        *,
        name: str,
        gate: Gate,
        egress: Egress,
        schema_hash: bytes,
        parameters: int,
        gossip: GossipSettings,
        masked: bool = False,
    ) -> None:
        self.name, self.gate = name, gate
        self.schema_hash, self.parameters = schema_hash, parameters
        self.gossip, self.masked = gossip, masked
        self.round_index = 0
        self.leaving = False
        self.silent_from: int | None = None
        self.spare: list[Body | Masked] = []
        self._egress = egress
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._error: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._complaints: dict[str, set[str]] = {}
        self._syncing = asyncio.Lock()
        self._next_sync: asyncio.Task[None] | None = None  # has not begun

    def emit(self, event: Event) -> None:
        """Hand an event to the node."""
        self._events.put_nowait(event)

    async def next_event(self) -> Event:
        """The next event, or the error that ended all sending."""
        while self._error is None:
            event = await self._events.get()
            if event is not None:
                return event
        raise self._error

    def fail(self, error: Exception) -> None:
        """Nothing leaves from now on, and the node learns why."""
        if self._error is None:
            self._error = error
            self._events.put_nowait(None)  # wakes whoever waits for an event

    def check(self) -> None:
        """May anything still be sent?

        Raises:
            EgressError: no, for something failed.
        """
        if self._error is not None:
            raise EgressError(f"nothing is sent any more after an error: {self._error}")

    def record(
        self, receiver: str, kind: str, round_index: int, size: int, sha256: bytes, *, durable: bool = True
    ) -> bytes:
        """Write the egress line of what is about to leave; its hash travels with it. See `Egress.record`.

        Raises:
            EgressError: now or earlier a line could not be written.
        """
        self.check()
        try:
            return self._egress.record(receiver, kind, round_index, size, sha256, durable=durable)
        except EgressError as error:
            self.fail(error)
            raise

    async def safe(self) -> None:
        """Wait, beside the event loop, until all lines so far are on the disk. Who waits at the same time waits for
        one sync: that of a round's bodies to all neighbours, for example.

        Raises:
            EgressError: they are not; nothing may leave.
        """
        if self._next_sync is None:
            self._next_sync = self.spawn(self._sync())
        await asyncio.shield(self._next_sync)
        self.check()

    async def _sync(self) -> None:
        async with self._syncing:
            self._next_sync = None  # it begins now: later lines need another one
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._egress.sync)
            except EgressError as error:
                self.fail(error)

    def post(self, receiver: str, message: AnyMessage, route: Route, status: LinkStatus) -> None:
        """Encode, record and send: there is no other way for a message to leave.

        Raises:
            EgressError: it cannot be recorded; it was not sent.
            LinkError: nobody takes it.
        """
        self._send(self._recorded(receiver, message), route, status)

    async def post_safely(self, receiver: str, message: AnyMessage, route: Route, status: LinkStatus) -> None:
        """The same, but what has to wait for the disk waits beside the event loop."""
        data = self._recorded(receiver, message, durable=False)
        await self.safe()
        self._send(data, route, status)

    def _recorded(self, receiver: str, message: AnyMessage, *, durable: bool = True) -> bytes:
        payload = encode(message)
        digest = hashlib.sha256(payload).digest()
        chain = self.record(receiver, message.kind, round_of(message), len(payload), digest, durable=durable)
        return envelope(payload, chain)

    def _send(self, data: bytes, route: Route, status: LinkStatus) -> None:
        route.send([data])
        status.sent_bytes += len(data)

    def read(self, sender: str, parts: Sequence[memoryview], status: LinkStatus) -> AnyMessage:
        """The message of an authenticated neighbour, its chain hash kept as a receipt.

        Raises:
            WireError: it is malformed.
            EgressError: the receipt cannot be kept.
        """
        status.received_bytes += sum(part.nbytes for part in parts)
        if len(parts) != 1:
            raise WireError(f"a message of {len(parts)} parts")
        message, chain = open_envelope(parts[0])
        if message.kind not in NOT_RECEIPTED:
            self.receipt(sender, message.kind, round_of(message), chain)
        return message

    def receipt(self, sender: str, kind: str, round_index: int, chain: bytes) -> None:
        """Keep the chain hash of something that arrived."""
        try:
            self._egress.receipt(sender, kind, round_index, chain)
        except EgressError as error:
            self.fail(error)
            raise

    def complain(self, name: str, reason: str) -> None:
        """Log something wrong about a neighbour, once for each kind of reason."""
        known = self._complaints.setdefault(name, set())
        kind = re.sub(r"[0-9a-f]{8,}|\d+", "#", reason)
        if kind not in known and len(known) < MAX_COMPLAINTS:
            known.add(kind)
            logger.warning("%s: %s", name, reason)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` beside everything else; an error in it ends all sending and reaches the node."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.fail(error)

    async def close(self) -> None:
        """End everything that was spawned."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def round_of(message: AnyMessage) -> int:
    """The round that a message is about, `NO_ROUND` if none."""
    if isinstance(message, Greeting | Heartbeat | Receipt | Silence | Present | Participants | Decline):
        return message.round
    return message.last_round if isinstance(message, Goodbye) else NO_ROUND
