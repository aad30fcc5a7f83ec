"""The side that dials: connects to one neighbour, greets it, and tries again as often as it takes."""

import asyncio
import random
import secrets

import zmq
import zmq.asyncio

from flop_p2p.errors import WireError
from flop_p2p.transport.base import TransportKeys
from flop_p2p.transport.connection import Connection, connect
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.link import Link
from flop_p2p.transport.monitor import Monitor
from flop_p2p.transport.session import hello, make_session, refusal
from flop_p2p.transport.sockets import HANDSHAKE_TIMEOUT, LinkError, RefusedError
from flop_p2p.wire import AnyMessage, KeyExchange, Ready, Refuse, Unknown, Welcome
from flop_p2p.wire.messages import SESSION_BYTES

FIRST_DELAY = 0.2  # seconds before the second attempt; doubled with each further one
LONGEST_DELAY = 10.0  # seconds between attempts, and after a refusal or a goodbye


class Dialler:
    """Keeps the connection to one neighbour."""

    def __init__(
        self, hub: Hub, link: Link, context: zmq.asyncio.Context, keys: TransportKeys, proxy: str | None
    ) -> None:
        self._hub, self._link, self._context, self._keys, self._proxy = hub, link, context, keys, proxy

    async def run(self) -> None:
        """Dial for ever. Delays grow with each failure in a row and are drawn at random, so that nodes spread out."""
        delay = FIRST_DELAY
        while True:
            try:
                await self._converse()
            except LinkError as error:
                refused = isinstance(error, RefusedError)
                self._link.lose(str(error))
                self._link.fail(str(error), refused=refused)
                delay = LONGEST_DELAY if refused else min(2 * delay, LONGEST_DELAY)
            else:
                delay = LONGEST_DELAY if self._link.status.state == "left" else FIRST_DELAY
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))

    async def _converse(self) -> None:
        """One connection from beginning to end. Returns when a session came about and ended.

        Raises:
            LinkError: no session came about.
        """
        sealed = self._hub.gossip.bulk == "sealed"
        async with connect(self._context, self._keys, self._link.peer, sealed=sealed, proxy=self._proxy) as connection:
            conversation = Conversation(self._hub, self._link, connection)
            try:
                await conversation.run()
            finally:
                self._link.lose("this node closed the connection")


class Conversation:
    """What is said over one connection of the dialling side."""

    def __init__(self, hub: Hub, link: Link, connection: Connection) -> None:
        self._hub, self._link, self._connection = hub, link, connection
        self._way = connection.way
        self._exchange: KeyExchange | None = None
        self._session = b""
        self._deadline: asyncio.TimerHandle | None = None
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Greet, then read until the connection ends.

        Raises:
            LinkError: the greeting came to nothing, and why.
        """
        tasks = [self._hub.spawn(self._read_control())]
        tasks += [self._hub.spawn(self._watch(monitor)) for monitor in self._connection.monitors]
        if self._way.bulk != self._way.control:
            tasks.append(self._hub.spawn(self._read_bulk()))
        try:
            self._greet()
            await self._end
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _greet(self) -> None:
        if self._exchange is not None:
            return
        self._exchange, self._session = KeyExchange(), secrets.token_bytes(SESSION_BYTES)
        greeting = hello(
            self._hub, self._link.name, self._exchange, bulk_id=self._connection.bulk_id, session=self._session
        )
        self._post(greeting)
        late = LinkError(f"no answer to the greeting in {HANDSHAKE_TIMEOUT:g} s")
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, self._fail, late)

    async def _read_control(self) -> None:
        while True:
            frames = await self._way.control.socket.recv_multipart(copy=False)
            parts = [frame.buffer for frame in frames]
            if len(parts) == 2 and self._hub.gossip.bulk == "curve":
                self._frame(parts[0], parts[1])
                continue
            try:
                if len(parts) != 1:
                    raise WireError(f"a message of {len(parts)} parts")
                self._message(self._hub.read(self._link.name, parts[0], self._link.status))
            except WireError as error:
                self._link.drop(str(error))
                if self._link.way is None:
                    self._fail(RefusedError(str(error)))

    async def _read_bulk(self) -> None:
        while True:
            frames = await self._way.bulk.socket.recv_multipart(copy=False)
            if len(frames) == 2:
                self._frame(frames[0].buffer, frames[1].buffer)
            else:
                self._link.drop(f"a frame of {len(frames)} parts")

    def _frame(self, header: memoryview, sealed: memoryview) -> None:
        if self._link.way is not None:
            self._link.frame(bytes(header), sealed)

    async def _watch(self, monitor: Monitor) -> None:
        await monitor.until(zmq.EVENT_DISCONNECTED)
        self._fail(LinkError("the connection was closed by the other side"))

    def _message(self, message: AnyMessage) -> None:
        if isinstance(message, Welcome):
            self._welcomed(message)
        elif isinstance(message, Refuse):
            self._fail(RefusedError(f"refuses this node: {message.reason}"))
        elif isinstance(message, Unknown):
            self._link.forget()
            self._greet()
        elif self._link.way is not None:
            self._link.message(message)

    def _welcomed(self, message: Welcome) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None or message.session != self._session:
            raise WireError("a welcome that answers no hello")
        if self._deadline is not None:
            self._deadline.cancel()
        reason = refusal(self._hub, self._link.name, message)
        if reason is not None:
            self._post(Refuse(reason=reason))
            self._fail(RefusedError(reason))
            return
        session = make_session(self._hub, self._link.name, exchange, message)
        self._post(Ready(session=message.session))
        self._link.establish(session, self._way, ended=self._ended, renew=self._greet)

    def _post(self, message: AnyMessage) -> None:
        try:
            self._hub.post(self._link.name, message, self._way.control, self._link.status)
        except LinkError as error:
            self._fail(error)

    def _ended(self) -> None:
        if not self._end.done():
            self._end.set_result(None)

    def _fail(self, error: LinkError) -> None:
        if not self._end.done():
            self._end.set_exception(error)
