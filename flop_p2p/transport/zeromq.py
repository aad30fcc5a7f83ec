"""The transport between hospitals: ZeroMQ with CURVE for messages, sealed frames beside it for bodies."""

import asyncio
from collections.abc import Callable, Sequence

import zmq.asyncio

from flop_p2p.config.federation import GossipSettings
from flop_p2p.transport.authentication import MemberAuthenticator
from flop_p2p.transport.base import (
    BodyReceived,
    Egress,
    Event,
    Gate,
    LinkStatus,
    OutgoingBody,
    Peer,
    Transport,
    TransportKeys,
)
from flop_p2p.transport.dialler import Dialler
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.link import Link
from flop_p2p.transport.listener import Listener
from flop_p2p.wire import Goodbye

GOODBYE_TIMEOUT = 5.0  # seconds that bodies may still take to be sent and acknowledged
GOODBYE_POLL = 0.02  # seconds between looks whether they were


class ZmqTransport(Transport):
    """Greets the neighbours, carries bodies, notices losses. Everything runs in the event loop that `open` ran in.

    Args:
        name, keys: of this node.
        peers: its neighbours.
        gate: asked about greetings.
        egress: the log that everything passes before it leaves.
        schema_hash: SHA-256 of the body's schema.
        parameters: numbers in a body.
        gossip: times, and which channel carries bodies.
        federation_id: the id of the federation in force.
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
        federation_id: Callable[[], str],
        listen: str | None,
        bulk_listen: str | None,
        proxy: str | None,
    ) -> None:
        self._keys, self._proxy = keys, proxy
        self._listen, self._bulk_listen = listen, bulk_listen
        self._hub = Hub(
            name=name,
            gate=gate,
            egress=egress,
            schema_hash=schema_hash,
            parameters=parameters,
            gossip=gossip,
            federation_id=federation_id,
        )
        self._links = {peer.name: Link(self._hub, peer) for peer in peers}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._authenticator: MemberAuthenticator | None = None
        self._listener: Listener | None = None
        self._context: zmq.asyncio.Context | None = None

    async def open(self) -> None:
        """See `Transport.open`."""
        self._context = zmq.asyncio.Context()
        if self._listen is not None:
            self._authenticator = MemberAuthenticator(self._context, [link.peer for link in self._links.values()])
            self._authenticator.start()
            self._listener = Listener(self._hub, self._links, self._authenticator, self._context, self._keys)
            try:
                self._listener.open(self._listen, self._bulk_listen)
            except BaseException:
                await self.close()
                raise
        for link in self._links.values():
            self._dial(link)

    async def next_event(self) -> Event:
        """See `Transport.next_event`."""
        event = await self._hub.next_event()
        if isinstance(event, BodyReceived) and event.name in self._links:
            self._links[event.name].taken()
        return event

    def send(self, name: str, outgoing: OutgoingBody) -> None:
        """See `Transport.send`."""
        if name in self._links:
            self._links[name].send(outgoing)

    def set_round(self, round_index: int) -> None:
        """See `Transport.set_round`."""
        self._hub.round_index = round_index

    def update_peers(self, peers: Sequence[Peer]) -> None:
        """See `Transport.update_peers`."""
        given = {peer.name: peer for peer in peers}
        for name, link in list(self._links.items()):
            if given.get(name) != link.peer:
                self._hang_up(name)
                link.lose("the federation changed")
                del self._links[name]
        if self._authenticator is not None:
            self._authenticator.update(peers)
        for peer in peers:
            if peer.name not in self._links:
                self._links[peer.name] = Link(self._hub, peer)
                self._dial(self._links[peer.name])

    async def goodbye(self, last_round: int, finished: bool) -> None:
        """See `Transport.goodbye`; waits at most `GOODBYE_TIMEOUT`."""
        self._hub.leaving = True
        give_up = asyncio.get_running_loop().time() + GOODBYE_TIMEOUT
        while not all(link.idle for link in self._links.values()) and asyncio.get_running_loop().time() < give_up:
            await asyncio.sleep(GOODBYE_POLL)
        for link in self._links.values():
            link.post(Goodbye(last_round=last_round, finished=finished))
            link.forget()
        for name in self._links:
            self._hang_up(name)

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._hub.close()
        if self._listener is not None:
            self._listener.close()
        if self._authenticator is not None:
            self._authenticator.stop()
        if self._context is not None:
            await asyncio.to_thread(self._context.term)

    def links(self) -> dict[str, LinkStatus]:
        """See `Transport.links`."""
        return {name: link.status for name, link in self._links.items()}

    def _dial(self, link: Link) -> None:
        if link.peer.dials and self._context is not None:
            dialler = Dialler(self._hub, link, self._context, self._keys, self._proxy)
            self._dialling[link.name] = self._hub.spawn(dialler.run())

    def _hang_up(self, name: str) -> None:
        if name in self._dialling:
            self._dialling.pop(name).cancel()
