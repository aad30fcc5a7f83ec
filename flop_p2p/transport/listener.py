"""The sockets that other nodes dial: one for the messages of all neighbours, and one for their frames."""

import asyncio
from collections.abc import Mapping

import zmq
import zmq.asyncio

from flop_p2p.errors import TransportError
from flop_p2p.transport.acceptor import Acceptor
from flop_p2p.transport.authentication import MemberAuthenticator
from flop_p2p.transport.base import TransportKeys
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.link import Link
from flop_p2p.transport.monitor import Monitor
from flop_p2p.transport.routes import SocketRoute
from flop_p2p.transport.sockets import bind, bulk_server, curve_server
from flop_p2p.transport.strangers import UNKNOWN, WATCHED, Strangers
from flop_p2p.wire import MAX_HEADER_BYTES

AT_ONCE = 4  # messages of a socket that are taken before anything else has a turn; less than a window of frames
PAUSE = 1.0  # seconds between looks at who is gone, however many strangers come and go


class Listener:
    """Accepts the neighbours that dial this node.

    Attributes:
        strangers: what came from nobody who was greeted.
    """

    def __init__(self, hub: Hub, links: Mapping[str, Link], context: zmq.asyncio.Context, keys: TransportKeys) -> None:
        self.strangers = Strangers()
        self._hub, self._links = hub, links
        self._authenticator = MemberAuthenticator(context, links)
        self._control = curve_server(context, keys)
        self._bulk = bulk = bulk_server(context) if hub.gossip.bulk == "sealed" else None
        self._monitors: list[Monitor] = []
        self._gone = asyncio.Event()
        self._acceptor = Acceptor(hub, links, None if bulk is None else lambda bulk_id: SocketRoute(bulk, (bulk_id,)))

    def open(self, listen: str, bulk_listen: str | None) -> None:
        """Bind, with the authenticator in place, and begin to read.

        Raises:
            TransportError: an address cannot be used.
        """
        self._authenticator.start()
        self._hub.spawn(self._authenticator.serve())
        if self._bulk is not None:
            if bulk_listen is None:
                raise TransportError('no address to listen at for bodies; give bulk_listen, or gossip.bulk = "curve"')
            bind(self._bulk, bulk_listen)
            self._hub.spawn(self._read_bulk(self._bulk))
            self._hub.spawn(self._count(self._monitor(self._bulk, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)))
        bind(self._control, listen)
        monitor = self._monitor(self._control, WATCHED)
        for work in (self._read_control(), self._watch(monitor), self._look_who_is_gone(monitor)):
            self._hub.spawn(work)

    def close(self) -> None:
        """Close the sockets."""
        self._authenticator.stop()
        for monitor in self._monitors:
            monitor.close()
        self._control.close()
        if self._bulk is not None:
            self._bulk.close()

    async def _read_control(self) -> None:
        while True:
            for _ in range(AT_ONCE):
                routing_id, *parts = await self._control.recv_multipart(copy=False)
                if (link := self._sender(parts)) is not None:
                    route = SocketRoute(self._control, (routing_id.bytes,))
                    self._acceptor.take(link, route, [part.buffer for part in parts])
            await asyncio.sleep(0)  # while messages wait, receiving them does not let anything else run

    def _sender(self, parts: list[zmq.Frame]) -> Link | None:
        """The neighbour whose key ZAP authenticated; None where it is no neighbour any more."""
        key = parts[0].get("User-Id") if parts else None
        return self._authenticator.member(key) if isinstance(key, str) else None

    async def _read_bulk(self, bulk: zmq.asyncio.Socket) -> None:
        while True:
            for _ in range(AT_ONCE):
                routing_id, *parts = await bulk.recv_multipart(copy=False)
                route = SocketRoute(bulk, (routing_id.bytes,))
                strange = len(parts) != 2 or len(parts[0]) > MAX_HEADER_BYTES
                if strange or not self._acceptor.frame(route, parts[0].bytes, parts[1].buffer):
                    self.strangers.frame(_address(parts))
            await asyncio.sleep(0)

    async def _count(self, monitor: Monitor) -> None:
        """Keep the authenticator's count of bulk connections. A descriptor whose end was missed is soon used again."""
        connections = self._authenticator.bulk_connections
        while True:
            event, descriptor = await monitor.next()
            if event == zmq.EVENT_ACCEPTED:
                connections.add(descriptor)
            elif event == zmq.EVENT_DISCONNECTED:
                connections.discard(descriptor)

    def _monitor(self, monitored: zmq.asyncio.Socket, wanted: int) -> Monitor:
        self._monitors.append(Monitor(monitored, wanted))
        return self._monitors[-1]

    async def _watch(self, monitor: Monitor) -> None:
        while True:
            event, value = await monitor.next()
            self.strangers.event(event, value)
            if event == zmq.EVENT_DISCONNECTED:
                self._gone.set()

    async def _look_who_is_gone(self, monitor: Monitor) -> None:
        """When connections end, find out whose by sending a sign of life to all."""
        while True:
            await self._gone.wait()
            self._gone.clear()
            await monitor.settled()
            for link in list(self._links.values()):
                link.ping()
            await asyncio.sleep(PAUSE)


def _address(parts: list[zmq.Frame]) -> str:
    address = parts[0].get("Peer-Address") if parts else None
    return address if isinstance(address, str) else UNKNOWN
