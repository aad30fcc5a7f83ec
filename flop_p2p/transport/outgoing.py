"""Bodies on their way out to one neighbour: the newest waits, one is under way, a few chunks are in flight."""

import asyncio
import time
from functools import partial

from flop_p2p.errors import EgressError, WireError
from flop_p2p.transport.base import LinkStatus, OutgoingBody
from flop_p2p.transport.beside import beside
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.routes import LinkError, Route
from flop_p2p.wire import Descriptor, FrameSealer, chunk_views

WINDOW = 8  # frames that may be in flight, each in a buffer of its own
TRANSFER_TIMEOUT = 120.0  # seconds without a frame being taken, or coming, before the connection is given up
SEALED_CHUNK_BYTES = 2 << 20  # twice as long saves a tenth of the time, and takes twice the buffers
CURVE_CHUNK_BYTES = 1 << 18  # four times as fast as 1 MiB under CURVE, and heartbeats get through between them
RETRY = 0.05  # seconds until a frame is tried again whose receiver is not there yet
BULK_TIMEOUT = 10.0  # seconds after which it is not expected any more
MAX_UNACKNOWLEDGED = 16  # bodies whose receipts are awaited


class Outgoing:
    """Sends bodies over one connection. A new connection gets a new one, for buffers may still be with the old.

    Attributes:
        sealer: of the session; a body that is under way keeps the one it began with.
    """

    def __init__(self, hub: Hub, name: str, route: Route, status: LinkStatus, sealer: FrameSealer) -> None:
        self.sealer = sealer
        self._hub, self._name, self._route, self._status = hub, name, route, status
        self._chunk_bytes = CURVE_CHUNK_BYTES if hub.gossip.bulk == "curve" else SEALED_CHUNK_BYTES
        largest = min(self._chunk_bytes, 4 * hub.parameters) + sealer.overhead
        self._buffers = [memoryview(bytearray()) for _ in range(WINDOW)]
        self._buffer_bytes = largest
        self._turn = 0
        self._in_flight = 0
        self._waiting: OutgoingBody | None = None
        self._under_way = False
        self._told: int | None = None  # round of the latest body that left over this connection
        self._unacknowledged: dict[bytes, int] = {}
        self._wake = asyncio.Event()
        self._credited = asyncio.Event()

    def offer(self, outgoing: OutgoingBody) -> None:
        """Send this body next; one that waits is replaced."""
        self._waiting = outgoing
        self._wake.set()

    def credit(self, chunks: int) -> None:
        """The neighbour is done with so many frames.

        Raises:
            WireError: more than are in flight.
        """
        if chunks > self._in_flight:
            raise WireError(f"credit for {chunks} frames, but {self._in_flight} are in flight")
        self._in_flight -= chunks
        self._credited.set()

    def receipt(self, round_index: int, chain: bytes) -> None:
        """The neighbour has the body of ``round_index`` that left under ``chain``.

        Raises:
            WireError: no such body left.
        """
        if self._unacknowledged.get(chain) != round_index:
            raise WireError(f"receipt for a body of round {round_index} that was not sent")
        del self._unacknowledged[chain]

    @property
    def idle(self) -> bool:
        """Nothing waits, is under way, or lacks its receipt."""
        return self._waiting is None and not self._under_way and not self._unacknowledged

    async def run(self) -> None:
        """Send what is offered, one body after the other.

        Raises:
            LinkError: the neighbour takes nothing any more.
            WireError: the session is used up.
            EgressError: a body cannot be recorded; nothing of it was sent.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._waiting is not None:
                outgoing, self._waiting, self._under_way = self._waiting, None, True
                await self._send_body(outgoing)
                self._under_way = False

    async def _send_body(self, outgoing: OutgoingBody) -> None:
        sealer, payload = self.sealer, outgoing.payload(self._told)
        if self._hub.masked and payload.encoding != "masked":
            raise EgressError(f"a body that is not masked was about to leave for {self._name}; it did not")
        chunks = chunk_views(payload.data.data, self._chunk_bytes)
        size = payload.data.nbytes
        chain = self._hub.record(self._name, "body", outgoing.round, size, payload.sha256, durable=False)
        await self._hub.safe()
        if len(self._unacknowledged) == MAX_UNACKNOWLEDGED:
            del self._unacknowledged[next(iter(self._unacknowledged))]
        self._unacknowledged[chain] = outgoing.round
        descriptor = Descriptor(
            round=outgoing.round,
            schema_hash=self._hub.schema_hash,
            encoding=payload.encoding,
            base=payload.base,
            size=size,
            chunk_bytes=self._chunk_bytes,
            chunks=len(chunks),
            sha256=payload.sha256,
            participants=payload.participants,
            chain=chain,
        ).encode()
        for index, plaintext in enumerate([memoryview(descriptor), *chunks]):
            await self._slot()
            buffer = self._buffer(len(plaintext) + sealer.overhead)
            seal = partial(sealer.seal, outgoing.round, index, len(chunks), plaintext, buffer)
            header, sealed = await beside(seal, len(plaintext))
            await self._send_frame(header, sealed)
        self._told = outgoing.round

    async def _slot(self) -> None:
        """Wait until a frame less than the window is in flight. Frames are credited in their order."""
        while self._in_flight == WINDOW:
            self._credited.clear()
            try:
                async with asyncio.timeout(TRANSFER_TIMEOUT):
                    await self._credited.wait()
            except TimeoutError:
                raise LinkError(f"took no part of a body for {TRANSFER_TIMEOUT:g} s") from None

    def _buffer(self, size: int) -> memoryview:
        """The buffer of the frame that was credited longest ago: ZeroMQ is done with it."""
        self._turn = (self._turn + 1) % WINDOW
        if self._buffers[self._turn].nbytes < size:
            self._buffers[self._turn] = memoryview(bytearray(max(size, self._buffer_bytes)))
        return self._buffers[self._turn]

    async def _send_frame(self, header: bytes, sealed: memoryview) -> None:
        """The listening side may know of the bulk connection a moment later than of the control connection."""
        give_up = time.monotonic() + BULK_TIMEOUT
        while True:
            try:
                self._route.send([header, sealed])
                break
            except LinkError as error:
                if time.monotonic() > give_up:
                    raise LinkError(f"the bulk channel: {error}") from None
            await asyncio.sleep(RETRY)
        self._in_flight += 1
        self._status.sent_bytes += len(header) + sealed.nbytes
