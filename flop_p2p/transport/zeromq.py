"""The transport between hospitals: ZeroMQ with CURVE for messages, sealed frames beside it for bodies."""

import asyncio
from collections.abc import Callable, Sequence

import zmq
import zmq.asyncio

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.errors import TransportError
from flop_p2p.transport.base import Egress, Gate, Peer, TransportKeys
from flop_p2p.transport.common import CommonTransport
from flop_p2p.transport.connection import connect
from flop_p2p.transport.conversation import Conversation
from flop_p2p.transport.link import Link
from flop_p2p.transport.listener import AT_ONCE, Listener
from flop_p2p.transport.monitor import Monitor
from flop_p2p.transport.routes import LinkError


class ZmqTransport(CommonTransport):
    """Everything runs in the event loop that `open` ran in.

    Args:
        name, peers, gate, egress, schema_hash, parameters, gossip, masked: see `CommonTransport`.
        keys: of this node.
        listen, bulk_listen: addresses to bind; None where the site only dials out (or CURVE carries the bodies).
        proxy: SOCKS5 proxy ``host:port`` for outgoing connections.
    """

    def __init__(
        self,
        *,
        name: str,
        keys: TransportKeys,
        peers: Sequence[Peer],
        gate: Gate,
        egress: Egress,
        schema_hash: bytes,
        parameters: int,
        gossip: GossipSettings,
        listen: str | None,
        bulk_listen: str | None,
        proxy: str | None,
        masked: bool = False,
    ) -> None:
        super().__init__(
            name=name,
            peers=peers,
            gate=gate,
            egress=egress,
            schema_hash=schema_hash,
            parameters=parameters,
            gossip=gossip,
            masked=masked,
        )
        self._keys, self._proxy = keys, proxy
        self._listen_at, self._bulk_listen_at = listen, bulk_listen
        self._context: zmq.asyncio.Context | None = None
        self._listener: Listener | None = None

    @property
    def strangers(self) -> int:
        """How many frames and connections came from strangers since the transport was opened; all were dropped."""
        strangers = self._listener.strangers if self._listener is not None else None
        return 0 if strangers is None else strangers.frames + strangers.connections

    async def _listen(self) -> None:
        self._context = zmq.asyncio.Context()
        if self._listen_at is not None:
            self._listener = Listener(self._hub, self._links, self._context, self._keys)
            try:
                self._listener.open(self._listen_at, self._bulk_listen_at)
            except TransportError:
                await self.close()
                raise

    async def _hush(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        context, self._context = self._context, None
        if context is not None:
            await asyncio.to_thread(context.term)

    async def _converse(self, link: Link) -> None:
        if self._context is None:
            return
        sealed = self._hub.gossip.bulk == "sealed"
        async with connect(self._context, self._keys, link.peer, sealed=sealed, proxy=self._proxy) as connection:
            conversation = Conversation(self._hub, link, connection.way, connection.bulk_id)
            takes = (conversation.take, conversation.take_bulk)  # only the first socket is authenticated
            tasks = [self._hub.spawn(_read(*pair)) for pair in zip(connection.sockets, takes, strict=False)]
            tasks += [self._hub.spawn(_watch(monitor, conversation)) for monitor in connection.monitors]
            try:
                await conversation.run()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _read(socket: zmq.asyncio.Socket, take: Callable[[Sequence[memoryview]], None]) -> None:
    while True:
        for _ in range(AT_ONCE):
            frames = await socket.recv_multipart(copy=False)
            take([frame.buffer for frame in frames])
        await asyncio.sleep(0)  # while messages wait, receiving them does not let anything else run


async def _watch(monitor: Monitor, conversation: Conversation) -> None:
    await monitor.until(zmq.EVENT_DISCONNECTED)
    await monitor.settled()
    conversation.fail(LinkError("the other side closed the connection"))
