"""What every transport does alike: links and their events, bodies out, changes of neighbours, goodbye."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.errors import EgressError
from flop_p2p.transport.base import (
    Body,
    BodyReceived,
    Egress,
    Event,
    Gate,
    LinkStatus,
    OutgoingBody,
    Peer,
    Transport,
)
from flop_p2p.transport.dialler import Dialler
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.link import Link
from flop_p2p.wire import Decline, Goodbye, Participants, Present
from flop_p2p.wire.encodings import Masked

GOODBYE_TIMEOUT = 5.0  # seconds that bodies may still take to be sent and acknowledged
GOODBYE_POLL = 0.02  # seconds between looks whether they were


class CommonTransport(Transport, ABC):
    """A transport but for what carries its bytes.

    Args:
        name: of this node.
        peers: its neighbours.
        gate: asked about greetings.
        egress: the log that everything passes before it leaves.
        schema_hash: SHA-256 of the body's schema.
        parameters: numbers in a body.
        gossip: times, and which channel carries bodies.
        masked: bodies leave and come masked only.
    """

    first_delay = 0.2  # seconds before the second attempt to connect; doubled with each further one
    longest_delay = 10.0  # seconds between attempts, and after a refusal or a goodbye

    def __init__(
        self,
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
        self._hub = Hub(
            name=name,
            gate=gate,
            egress=egress,
            schema_hash=schema_hash,
            parameters=parameters,
            gossip=gossip,
            masked=masked,
        )
        self._links = {peer.name: Link(self._hub, peer) for peer in peers}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._opened = False

    async def open(self) -> None:
        """See `Transport.open`."""
        await self._listen()
        self._opened = True
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

    def say(self, name: str, message: Present | Participants | Decline) -> None:
        """See `Transport.say`."""
        if name in self._links:
            self._links[name].say(message)

    def free(self, body: Body | Masked) -> None:
        """See `Transport.free`; as many are kept as there are neighbours, and none that changes may come to."""
        if self._hub.gossip.compression == "none" and len(self._hub.spare) < len(self._links):
            self._hub.spare.append(body)

    def set_round(self, round_index: int, soon: Collection[str] = ()) -> None:
        """See `Transport.set_round`."""
        if round_index == self._hub.round_index:
            return
        self._hub.round_index = round_index
        with suppress(EgressError):  # the next event raises it
            for name, link in self._links.items():
                if name not in soon:
                    link.ping()

    def silence(self, round_index: int) -> bool:
        """See `Transport.silence`."""
        if self._hub.silent_from is not None:
            return False
        self._hub.silent_from = round_index
        with suppress(EgressError):  # the next event raises it
            for link in self._links.values():
                link.tell_silence()
        return True

    def update_peers(self, peers: Sequence[Peer]) -> None:
        """See `Transport.update_peers`."""
        given = {peer.name: peer for peer in peers}
        for name, link in list(self._links.items()):
            if name in given and _only_more_keys(link.peer, given[name]):
                link.peer = given[name]
            else:
                self._hang_up(name)
                link.lose("the federation changed")
                del self._links[name]
        for peer in peers:
            if peer.name not in self._links:
                self._links[peer.name] = Link(self._hub, peer)
                self._dial(self._links[peer.name])

    async def goodbye(self, last_round: int, finished: bool, timeout: float | None = None) -> None:
        """See `Transport.goodbye`; without a ``timeout`` it is `GOODBYE_TIMEOUT`."""
        self._hub.check()
        self._hub.leaving = True
        clock = asyncio.get_running_loop().time
        give_up = clock() + (GOODBYE_TIMEOUT if timeout is None else timeout)
        while not all(link.idle for link in self._links.values()) and clock() < give_up:
            await asyncio.sleep(GOODBYE_POLL)
        for name, link in self._links.items():
            link.post(Goodbye(last_round=last_round, finished=finished))
            link.forget()
            self._hang_up(name)

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._hub.close()
        await self._hush()

    def links(self) -> dict[str, LinkStatus]:
        """See `Transport.links`."""
        return {name: link.status for name, link in self._links.items()}

    @abstractmethod
    async def _listen(self) -> None:
        """Take connections from now on."""

    @abstractmethod
    async def _hush(self) -> None:
        """Close whatever carries bytes."""

    @abstractmethod
    async def _converse(self, link: Link) -> None:
        """One connection to a neighbour that is dialled, from beginning to end. See `Dialler`."""

    def _dial(self, link: Link) -> None:
        if link.peer.dials and self._opened:
            dialler = Dialler(link, self._converse, self.first_delay, self.longest_delay)
            self._dialling[link.name] = self._hub.spawn(dialler.run())

    def _hang_up(self, name: str) -> None:
        if name in self._dialling:
            self._dialling.pop(name).cancel()


def _only_more_keys(before: Peer, after: Peer) -> bool:
    return set(before.curve_keys) <= set(after.curve_keys) and replace(before, curve_keys=after.curve_keys) == after
