"""What the dialling side says over one connection, whatever carries the bytes: it greets until the connection ends."""

import asyncio
import math
import secrets
import time
from collections.abc import Sequence

from flop_p2p.errors import WireError
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.link import Link
from flop_p2p.transport.routes import LinkError, RefusedError, Way
from flop_p2p.transport.session import hello, make_session, refusal
from flop_p2p.wire import MAX_HEADER_BYTES, AnyMessage, KeyExchange, Ready, Refuse, Unknown, Welcome
from flop_p2p.wire.messages import SESSION_BYTES

GREETING_TIMEOUT = 10.0  # seconds that the other side may take to answer a hello
MEMORY = 5.0  # seconds in which it may forget the session once


class Conversation:
    """One connection from the hello to its end.

    Args:
        bulk_id: routing id of the bulk connection, empty if there is none.

    Attributes:
        name: of the neighbour.
    """

    def __init__(self, hub: Hub, link: Link, way: Way, bulk_id: bytes) -> None:
        self._hub, self._link, self._way, self._bulk_id = hub, link, way, bulk_id
        self.name = link.name
        self._exchange: KeyExchange | None = None
        self._forgot = -math.inf  # monotonic time
        self._deadline: asyncio.TimerHandle | None = None
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Greet, and return when the session that came about has ended.

        Raises:
            LinkError: none came about, or the connection broke, and why.
        """
        try:
            self._greet()
            await self._end
        finally:
            self._stop_waiting()

    def take(self, parts: Sequence[memoryview]) -> None:
        """Take what came over the authenticated connection: a message, or a frame where CURVE carries those too.

        Raises:
            EgressError: an answer cannot be recorded.
        """
        if len(parts) == 2 and self._way.bulk == self._way.control:
            self.take_bulk(parts)
            return
        try:
            if (message := self._link.read(parts)) is not None:
                self._message(message)
        except WireError as error:
            self._link.drop(str(error))
            if self._link.way is None:
                self.fail(RefusedError(str(error)))

    def take_bulk(self, parts: Sequence[memoryview]) -> None:
        """Take what came over the bulk connection: a sealed frame and nothing else, for anyone may answer there."""
        if len(parts) != 2 or parts[0].nbytes > MAX_HEADER_BYTES:
            self._link.drop(f"something of {len(parts)} parts that is no frame came over the bulk connection")
        elif self._link.way == self._way:
            self._link.frame(bytes(parts[0]), parts[1])

    def fail(self, error: LinkError) -> None:
        """The connection is of no use any more."""
        if not self._end.done():
            self._end.set_exception(error)

    def _greet(self) -> None:
        if self._exchange is not None:
            return
        self._exchange, session = KeyExchange(), secrets.token_bytes(SESSION_BYTES)
        self._hello = hello(self._hub, self._link.name, self._exchange, bulk_id=self._bulk_id, session=session)
        late = LinkError(f"no answer to the greeting in {GREETING_TIMEOUT:g} s")
        self._deadline = asyncio.get_running_loop().call_later(GREETING_TIMEOUT, self.fail, late)
        self._post(self._hello)

    def _message(self, message: AnyMessage) -> None:
        if isinstance(message, Welcome):
            self._welcomed(message)
        elif isinstance(message, Refuse):
            self.fail(RefusedError(f"refuses this node: {message.reason}"))
        elif isinstance(message, Unknown):
            self._forgotten()
        else:
            self._link.message(message)

    def _forgotten(self) -> None:
        """Greet again, but not for ever: who forgets again and again is dialled later and later."""
        self._link.lose("it has forgotten the session")
        if self._exchange is not None:
            return
        now = time.monotonic()
        if now - self._forgot < MEMORY:
            self.fail(LinkError("it has forgotten the session again"))
            return
        self._forgot = now
        self._greet()

    def _welcomed(self, message: Welcome) -> None:
        exchange, self._exchange = self._exchange, None
        self._stop_waiting()
        if exchange is None or message.session != self._hello.session:
            raise WireError("a welcome that answers no hello")
        reason = refusal(self._hub, self._link.name, message)
        if reason is not None:
            self._post(Refuse(reason=reason))
            self.fail(RefusedError(reason))
            return
        session = make_session(self._hub, self._link.name, exchange, message, self._hello)
        self._post(Ready(session=message.session))
        self._link.establish(session, self._way, ended=self._ended, renew=self._greet)

    def _post(self, message: AnyMessage) -> None:
        try:
            self._hub.post(self._link.name, message, self._way.control, self._link.status)
        except LinkError as error:
            self.fail(error)

    def _ended(self) -> None:
        if not self._end.done():
            self._end.set_result(None)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
