"""Transports that hand their messages to each other within one process, for tests of whatever drives a transport.

Greetings, sessions, bodies, credits and losses are the real ones; only the sockets are missing.
"""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.transport.acceptor import Acceptor
from flop_p2p.transport.base import Egress, Gate, Peer
from flop_p2p.transport.common import CommonTransport
from flop_p2p.transport.conversation import Conversation
from flop_p2p.transport.link import Link
from flop_p2p.transport.routes import LinkError, Part, Way


class MemoryNetwork:
    """The transports that are open, by name, and the links between them that are cut."""

    def __init__(self) -> None:
        self._members: dict[str, MemoryTransport] = {}
        self._cut: set[frozenset[str]] = set()
        self._numbers = itertools.count()

    def cut(self, one: str, other: str) -> None:
        """Break the link between two transports; both notice."""
        self._cut.add(frozenset((one, other)))
        for name, neighbour in ((one, other), (other, one)):
            if name in self._members:
                self._members[name].notice(neighbour)

    def mend(self, one: str, other: str) -> None:
        """Let the two connect again."""
        self._cut.discard(frozenset((one, other)))

    def find(self, name: str, seeker: str) -> "MemoryTransport | None":
        """The transport of ``name``, if it is open and its link to ``seeker`` is not cut."""
        return None if frozenset((name, seeker)) in self._cut else self._members.get(name)

    def join(self, transport: "MemoryTransport") -> None:
        """A transport was opened."""
        self._members[transport.name] = transport

    def leave(self, transport: "MemoryTransport") -> None:
        """A transport was closed; its neighbours notice."""
        self._members.pop(transport.name, None)
        for other in self._members.values():
            other.notice(transport.name)

    def next_number(self) -> int:
        """Tells one connection from the next."""
        return next(self._numbers)


@dataclass(frozen=True)
class MemoryRoute:
    """From ``sender`` to ``receiver`` over connection ``number``; the receiving transport decides what is done."""

    network: MemoryNetwork
    sender: str
    receiver: str
    number: int

    def send(self, parts: Sequence[Part]) -> None:
        """See `Route.send`."""
        receiver = self.network.find(self.receiver, self.sender)
        if receiver is None or not receiver.expects(self.sender, self.number):
            raise LinkError("the connection is gone")
        asyncio.get_running_loop().call_soon(receiver.arrived, self, [memoryview(part) for part in parts])

    def back(self) -> "MemoryRoute":
        """The other direction of the same connection."""
        return MemoryRoute(self.network, self.receiver, self.sender, self.number)


class MemoryTransport(CommonTransport):
    """The transport of one node of a `MemoryNetwork`. Arguments as those of `CommonTransport`."""

    first_delay = 0.01
    longest_delay = 0.1

    def __init__(
        self,
        network: MemoryNetwork,
        *,
        name: str,
        peers: Sequence[Peer],
        gate: Gate,
        egress: Egress,
        schema_hash: bytes,
        parameters: int,
        gossip: GossipSettings,
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
        self.name = name
        self._network = network
        self._acceptor = Acceptor(self._hub, self._links, None)
        self._conversations: dict[int, Conversation] = {}

    def arrived(self, route: MemoryRoute, parts: list[memoryview]) -> None:
        """Something came over ``route``."""
        link = self._links.get(route.sender)
        if link is None:
            return
        try:
            if route.number in self._conversations:
                self._conversations[route.number].take(parts)
            elif not link.peer.dials:
                self._acceptor.take(link, route.back(), parts)
        except Exception as error:
            self._hub.fail(error)

    def expects(self, sender: str, number: int) -> bool:
        """Whether the connection still exists at this end."""
        link = self._links.get(sender)
        return link is not None and (number in self._conversations or not link.peer.dials)

    def notice(self, name: str) -> None:
        """The link to ``name`` was cut, or it closed."""
        for conversation in self._conversations.values():
            if conversation.name == name:
                conversation.fail(LinkError("the connection is gone"))
        if name in self._links:
            self._links[name].ping()

    async def _listen(self) -> None:
        self._network.join(self)

    async def _hush(self) -> None:
        self._network.leave(self)

    async def _converse(self, link: Link) -> None:
        number = self._network.next_number()
        route = MemoryRoute(self._network, self.name, link.name, number)
        self._conversations[number] = Conversation(self._hub, link, Way(route, route), b"")
        try:
            await self._conversations[number].run()
        finally:
            del self._conversations[number]
