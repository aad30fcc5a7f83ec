"""Nodes on loopback for the tests of the transport: a gate, an egress log in memory, and what became of the events."""

import asyncio
import hashlib
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import zmq
import zmq.asyncio

from flop_p2p.config.federation import PROTOCOL_VERSION
from flop_p2p.config.gossip import GossipSettings
from flop_p2p.errors import EgressError
from flop_p2p.transport.base import Body, Event, OutgoingBody, Peer, TransportKeys
from flop_p2p.transport.common import CommonTransport
from flop_p2p.transport.memory import MemoryNetwork, MemoryTransport
from flop_p2p.transport.sockets import curve_client
from flop_p2p.transport.zeromq import ZmqTransport
from flop_p2p.wire import AnyMessage, Greeting, Hello, KeyExchange, encode, envelope, open_envelope

SCHEMA = hashlib.sha256(b"schema").digest()
QUICK = GossipSettings(heartbeat=0.1, lost_after=0.6)
PATIENCE = 8.0  # seconds that a test waits for what must happen
E = TypeVar("E")


def free_port() -> int:
    """A port that nobody uses now, nor is likely to be given for an outgoing connection before the test binds it."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as attempt, suppress(OSError):
            attempt.bind(("127.0.0.1", port))
            return port


def make_body(parameters: int, seed: int = 0) -> Body:
    return np.random.default_rng(seed).standard_normal(parameters, dtype=np.float32)


def outgoing(round_index: int, body: Body) -> OutgoingBody:
    return OutgoingBody(round_index, body, hashlib.sha256(body.tobytes()).digest())


@dataclass
class ListEgress:
    """An egress log in memory; ``broken`` makes it fail as a full disk would, ``stuck`` as a lost one.

    synced: how many lines are on the disk.
    """

    lines: list[tuple[str, str, int, int, bytes]] = field(default_factory=list)
    receipts: list[tuple[str, str, int, bytes]] = field(default_factory=list)
    chains: list[bytes] = field(default_factory=list)
    broken: bool = False
    stuck: bool = False
    synced: int = 0

    def record(
        self, receiver: str, kind: str, round_index: int, size: int, sha256: bytes, *, durable: bool = True
    ) -> bytes:
        if self.broken:
            raise EgressError("the disk is full")
        self.lines.append((receiver, kind, round_index, size, sha256))
        self.chains.append(hashlib.sha256(repr(self.lines[-1]).encode() + str(len(self.lines)).encode()).digest())
        return self.chains[-1]

    def sync(self) -> bytes:
        if self.stuck:
            raise EgressError("the disk is lost")
        self.synced = len(self.lines)
        return self.chains[-1]

    def receipt(self, sender: str, kind: str, round_index: int, chain: bytes) -> None:
        self.receipts.append((sender, kind, round_index, chain))

    def kinds(self, receiver: str | None = None) -> list[str]:
        return [line[1] for line in self.lines if receiver in (None, line[0])]


@dataclass
class OpenGate:
    """Greets truthfully, unless told otherwise, and accepts everyone of the same federation."""

    name: str
    federation: str = "one federation"
    changes: dict[str, Any] = field(default_factory=dict)
    accepts_all: bool = False

    def greeting(self, name: str) -> Mapping[str, Any]:
        return {
            "name": self.name,
            "protocol": PROTOCOL_VERSION,
            "federation": self.federation,
            "schema_hash": SCHEMA,
            "body_hash": bytes(32),
            "round": 0,
            "have": -1,
            "finished": False,
            "probe": False,
            "time": time.time(),
            **self.changes,
        }

    def refusal(self, name: str, greeting: Greeting) -> str | None:
        same = self.accepts_all or greeting.federation == self.federation
        return None if same else f"another federation: {greeting.federation}"


class Node:
    """One node: its transport, and what it has seen. ``async with`` opens and closes it."""

    def __init__(self, name: str, keys: TransportKeys, parameters: int, gossip: GossipSettings) -> None:
        self.name, self.keys, self.parameters, self.gossip = name, keys, parameters, gossip
        self.control = f"tcp://127.0.0.1:{free_port()}"
        self.bulk = f"tcp://127.0.0.1:{free_port()}"
        self.gate, self.egress = OpenGate(name), ListEgress()
        self.peers: list[Peer] = []
        self.listens = True
        self.proxy: str | None = None
        self.network: MemoryNetwork | None = None
        self.masked = False
        self.events: list[Event] = []
        self.error: Exception | None = None

    def make(self) -> CommonTransport:
        common: dict[str, Any] = {
            "name": self.name,
            "peers": self.peers,
            "gate": self.gate,
            "egress": self.egress,
            "schema_hash": SCHEMA,
            "parameters": self.parameters,
            "gossip": self.gossip,
            "masked": self.masked,
        }
        if self.network is not None:
            return MemoryTransport(self.network, **common)
        return ZmqTransport(
            **common,
            keys=self.keys,
            listen=self.control if self.listens else None,
            bulk_listen=self.bulk if self.listens else None,
            proxy=self.proxy,
        )

    async def start(self) -> None:
        self.transport = self.make()
        self.transport.first_delay, self.transport.longest_delay = 0.02, 0.1
        await self.transport.open()
        self.reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        self.reading.cancel()
        await self.transport.close()

    async def __aenter__(self) -> "Node":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _read(self) -> None:
        try:
            while True:
                self.events.append(await self.transport.next_event())
        except EgressError as error:
            self.error = error

    def seen(self, kind: type[E], **fields: Any) -> list[E]:
        """The events of this kind with these fields, in their order."""
        return [
            event
            for event in self.events
            if isinstance(event, kind) and all(getattr(event, key) == value for key, value in fields.items())
        ]

    async def until(self, kind: type[E], count: int = 1, **fields: Any) -> E:
        """Wait until so many such events were seen; the last of them."""
        await eventually(lambda: len(self.seen(kind, **fields)) >= count, f"{self.name} sees {kind.__name__} {fields}")
        return self.seen(kind, **fields)[count - 1]

    def send(self, name: str, round_index: int, body: Body) -> None:
        self.transport.send(name, outgoing(round_index, body))


async def eventually(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait until ``condition`` holds."""
    give_up = time.monotonic() + patience
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError(f"in vain for {patience} s: {what}")
        await asyncio.sleep(0.005)


def make_nodes(*names: str, parameters: int = 5, gossip: GossipSettings = QUICK, **changes: Any) -> list[Node]:
    """Nodes that are all each other's neighbours; of two, the first in the alphabet dials."""
    gossip = gossip.model_copy(update=changes)
    nodes = [Node(name, TransportKeys(*zmq.curve_keypair()), parameters, gossip) for name in names]
    for node in nodes:
        node.peers = [peer_of(other, dials=node.name < other.name) for other in nodes if other is not node]
    return nodes


def peer_of(node: Node, *, dials: bool) -> Peer:
    return Peer(node.name, (node.keys.public.decode(),), node.control, node.bulk, dials)


def strangers(one: Node, other: Node) -> None:
    """The two are no neighbours of each other."""
    for node, away in ((one, other), (other, one)):
        node.peers = [peer for peer in node.peers if peer.name != away.name]


def redirect(node: Node, other: str, **addresses: str) -> None:
    """Let ``node`` reach its peer ``other`` at other addresses, a relay's."""
    node.peers = [replace(peer, **addresses) if peer.name == other else peer for peer in node.peers]


class RawMember:
    """The keys of ``node`` in the hands of someone who says to ``target`` whatever he likes."""

    def __init__(self, node: Node, target: Node) -> None:
        self._node, self._target = node, target

    async def __aenter__(self) -> "RawMember":
        self._context = zmq.asyncio.Context()
        self.dealer = curve_client(self._context, self._node.keys, self._target.keys.public.decode())
        self.dealer.connect(self._target.control)
        await self.dealer.poll(flags=zmq.POLLOUT)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.dealer.close(0)
        self._context.term()

    async def send(self, message: AnyMessage) -> None:
        await self.dealer.send(envelope(encode(message), bytes(32)))

    async def receive(self) -> AnyMessage:
        async with asyncio.timeout(PATIENCE):
            return open_envelope(await self.dealer.recv())[0]

    def hello(self, **changes: Any) -> Hello:
        fields = {**self._node.gate.greeting(self._target.name), **changes}
        return Hello(**{"public_key": KeyExchange().public, "bulk_id": b"\x01" * 16, "session": b"12345678", **fields})


class running:  # noqa: N801 - used as a function
    """``async with running(*nodes)``: all of them open."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = nodes

    async def __aenter__(self) -> None:
        for node in self.nodes:
            await node.start()

    async def __aexit__(self, *_: object) -> None:
        for node in self.nodes:
            await node.stop()


def pairs(nodes: list[Node]) -> Iterator[tuple[Node, Node]]:
    yield from ((one, other) for one in nodes for other in nodes if one is not other)
