"""Frames of one neighbour, opened in a thread beside the event loop and put together to bodies."""

import asyncio
import time
from functools import partial

import numpy as np

from flop_p2p.errors import WireError
from flop_p2p.transport.base import Body
from flop_p2p.transport.beside import beside
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.outgoing import TRANSFER_TIMEOUT, WINDOW
from flop_p2p.transport.routes import LinkError
from flop_p2p.wire import Assembly, Descriptor, FrameHeader, FrameOpener
from flop_p2p.wire.chunks import WHOLE
from flop_p2p.wire.encodings import Masked

MAX_SESSIONS = 8  # sessions whose frames are opened: the newest


class Incoming:
    """One body on its way in at a time. Of small ones several may be complete before the node has taken the first.

    Attributes:
        untaken: bodies that are complete and that the node has not taken: while there is one, no credit is given.
    """

    def __init__(self, hub: Hub, opener: FrameOpener) -> None:
        self.untaken = 0
        self._hub = hub
        self._openers = [opener]  # ascending; a body that began under an older session may still be on its way
        self._assembly: Assembly | None = None
        self._due = 0  # index of the frame that comes next
        self._skipping = False  # the body's descriptor was not accepted; its chunks are authentic and of no use
        self._held: Body | None = None  # the latest body, where changes to it may come
        self._held_round = -1
        self._owed = 0
        self._moved = time.monotonic()
        self._dropped = False  # a frame was refused since
        self._frames: asyncio.Queue[tuple[bytes, memoryview]] = asyncio.Queue(WINDOW)

    def renew(self, opener: FrameOpener) -> None:
        """Frames of a new session come; those of the ones before are opened until the first of the new."""
        self._openers = [*self._openers, opener][-MAX_SESSIONS:]

    def arrived(self, header: bytes, sealed: memoryview) -> bool:
        """Hold a frame until those before it are opened; False if more are held than were credited."""
        if self._frames.full():
            self._dropped = True
            return False
        self._frames.put_nowait((header, sealed))
        return True

    async def next(self) -> tuple[Descriptor, Body | Masked] | None:
        """Wait for a frame and open it; a body that it completes is handed out with its descriptor.

        Raises:
            WireError: the frame is not authentic, or the body is not acceptable; it is dropped.
            LinkError: frames are missing, or came without credit; this connection is of no use any more.
        """
        header, sealed = await self._frames.get()
        try:
            return await self._frame(header, sealed)
        except WireError:
            self._dropped = True
            raise

    def credit(self) -> int:
        """How many frames to credit now: half a window or more at a time, none while a body is untaken."""
        if self.untaken or self._owed < WINDOW // 2:
            return 0
        owed, self._owed = self._owed, 0
        return owed

    def check_progress(self) -> None:
        """A body that began must go on; after a refused frame, which may have been a part of it, soon.

        Raises:
            LinkError: no part of it came for `TRANSFER_TIMEOUT`.
        """
        patience = self._hub.gossip.lost_after if self._dropped else TRANSFER_TIMEOUT
        if self._assembly is not None and not self.untaken and time.monotonic() - self._moved > patience:
            raise LinkError(f"sent no part of its body for {patience:g} s")

    async def _frame(self, header: bytes, sealed: memoryview) -> tuple[Descriptor, Body | Masked] | None:
        decoded = FrameHeader.decode(header)
        opener = self._opener_of(decoded.session)
        if decoded.index == 0:
            descriptor = opener.open_descriptor(header, sealed)
            self._opened(opener, decoded.index)
            self._begin(descriptor)
            return None
        due = self._assembly if decoded.index == self._due else None
        await beside(partial(_open_chunk, opener, decoded.index, header, sealed, due), sealed.nbytes)
        self._opened(opener, decoded.index)
        return await self._advance(self._assembly) if self._assembly is not None else None

    def _opener_of(self, session: bytes) -> FrameOpener:
        for opener in self._openers:
            if opener.session == session:
                return opener
        raise WireError(f"frame of session {session.hex()}, which is not under way")

    def _opened(self, opener: FrameOpener, index: int) -> None:
        if opener in self._openers:  # or so many sessions have begun since that it was forgotten
            del self._openers[: self._openers.index(opener)]
        self._moved, self._dropped = time.monotonic(), False
        self._owed += 1
        if self._owed > WINDOW:
            raise LinkError("sends without credit")
        if index != self._due and not (self._skipping and self._due == 0):
            raise LinkError(f"part {index} of a body came where {self._due} was due: some were lost or altered")

    def _begin(self, descriptor: Descriptor) -> None:
        self._skipping = True
        memory = self._hub.spare.pop() if self._hub.spare else None
        hub = self._hub
        self._assembly = Assembly(
            descriptor,
            schema_hash=hub.schema_hash,
            parameters=hub.parameters,
            gossip=hub.gossip,
            masked=hub.masked,
            memory=memory,
        )
        self._skipping, self._due = False, 1
        if descriptor.base >= 0 and descriptor.base != self._held_round:
            raise LinkError(f"changes a body of round {descriptor.base}, and that of {self._held_round} is here")

    async def _advance(self, assembly: Assembly) -> tuple[Descriptor, Body | Masked] | None:
        self._due += 1
        if not assembly.complete:
            return None
        descriptor = assembly.descriptor
        decoded = 0 if descriptor.encoding in WHOLE else 4 * self._hub.parameters
        try:
            body = await beside(partial(assembly.body, self._held), decoded)
        finally:
            self._assembly, self._due = None, 0
        if self._hub.gossip.compression == "top-k":
            self._held, self._held_round = body.view(np.float32), descriptor.round
        self.untaken += 1
        return descriptor, body


def _open_chunk(opener: FrameOpener, index: int, header: bytes, sealed: memoryview, assembly: Assembly | None) -> None:
    """Open a chunk where it belongs and add it; one that belongs nowhere only to see whether it is authentic.

    Raises:
        WireError: it is not authentic, or of another size than what belongs there.
    """
    size = max(0, sealed.nbytes - opener.overhead)
    target = memoryview(b"") if assembly is None else assembly.target(index)
    opener.open(header, sealed, target if target.nbytes == size else memoryview(bytearray(size)))
    if assembly is not None:
        if target.nbytes != size:
            raise WireError(f"part {index} of a body has {size} bytes instead of {target.nbytes}")
        assembly.add(index)
