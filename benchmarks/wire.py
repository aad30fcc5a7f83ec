"""How long four neighbours on a ring take to exchange and average their bodies: sealed, in the clear, under CURVE.

Each variant has four processes of its own that talk over loopback TCP with the transport of the daemon and an egress
log on disk: ResNet-18's body (11,176,512 float32, 44.7 MB) goes to both neighbours, and theirs are averaged with the
own. No training; the body is copied and hashed before the clock starts. ``clear`` is a variant of this benchmark alone,
whose frames carry the same headers and are neither encrypted nor authenticated. ``floor`` is four bare processes with
one TCP connection to each neighbour, that send from and receive into the very arrays that they average: nothing
can be exchanged faster without leaving something out. The variants take turns; a round lasts from the first process
that begins to the last that has averaged; figures are medians, ratios are medians over the turns.

    python benchmarks/wire.py [--rounds 7] [--small]
"""

import argparse
import asyncio
import hashlib
import multiprocessing
import random
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from machine import show

from flop_p2p.config.federation import PROTOCOL_VERSION
from flop_p2p.config.gossip import GossipSettings
from flop_p2p.node.egress import EgressLog
from flop_p2p.node.shared_schema import write_schema
from flop_p2p.partial import Schema, Split, TensorSpec, mix
from flop_p2p.transport import BodyReceived, Connected, Delivered, OutgoingBody, Peer, TransportKeys, ZmqTransport
from flop_p2p.wire import ClearOpener, ClearSealer, Greeting, KeyExchange

PARAMETERS, SMALL = 11_176_512, 25_000
SITES = 4
VARIANTS = ("floor", "clear", "sealed", "curve")
SPAWN = multiprocessing.get_context("forkserver")
Times = tuple[float, float, float, int]  # monotonic seconds at begin and end, processor seconds between, bytes sent


@dataclass(frozen=True)
class Place:
    """One process of a variant: its number on the ring, and keys and addresses of all."""

    variant: str
    number: int
    parameters: int
    folder: Path
    keys: tuple[TransportKeys, ...]
    ports: tuple[int, ...]

    @property
    def neighbours(self) -> tuple[int, int]:
        """The numbers before and after it."""
        return (self.number - 1) % SITES, (self.number + 1) % SITES

    def address(self, number: int, channel: int) -> str:
        """Where a site listens, for messages (0) or bodies (1)."""
        return f"tcp://127.0.0.1:{self.ports[2 * number + channel]}"


class Gate:
    """Tells the truth and accepts everybody."""

    def __init__(self, name: str) -> None:
        self._name = name

    def greeting(self, _: str) -> Mapping[str, Any]:
        """See `transport.base.Gate`."""
        fields = {"name": self._name, "protocol": PROTOCOL_VERSION, "federation": "benchmark", "time": time.time()}
        hashes = {"schema_hash": bytes(32), "body_hash": bytes(32)}
        return {**fields, **hashes, "round": 0, "have": -1, "finished": False, "probe": False}

    def refusal(self, _: str, __: Greeting) -> str | None:
        """See `transport.base.Gate`."""
        return None


def name_of(number: int) -> str:
    """Sites by name, in the order of their numbers."""
    return f"site-{number}"


def in_the_clear(_: KeyExchange, __: bytes, *, session: bytes, **___: Any) -> tuple[ClearSealer, ClearOpener]:
    """Stands for `KeyExchange.derive` where nothing is sealed."""
    return ClearSealer(session), ClearOpener(session)


def make_transport(place: Place, masked: bool = False) -> ZmqTransport:
    """The daemon's transport with its egress log."""
    schema = Schema((TensorSpec("body", (place.parameters,)),))
    place.folder.mkdir(parents=True)
    write_schema(place.folder, Split(body=schema, head=Schema(()), local=()), (4 * place.parameters,))
    own = name_of(place.number)
    peers = [
        Peer(
            name_of(number),
            (place.keys[number].public.decode(),),
            place.address(number, 0),
            place.address(number, 1),
            dials=place.number < number,
        )
        for number in place.neighbours
    ]
    bulk = "curve" if place.variant == "curve" else "sealed"
    return ZmqTransport(
        name=own,
        keys=place.keys[place.number],
        peers=peers,
        gate=Gate(own),
        egress=EgressLog(place.folder, own),
        schema_hash=bytes(32),
        parameters=place.parameters,
        gossip=GossipSettings(bulk=bulk, heartbeat=20.0, lost_after=120.0),
        listen=place.address(place.number, 0),
        bulk_listen=place.address(place.number, 1),
        proxy=None,
        masked=masked,
    )


async def run_variant(place: Place, pipe: Connection) -> None:
    """Exchange whenever the parent asks."""
    transport = make_transport(place)
    await connect(place, transport)
    own = make_body(place)
    pipe.send(None)
    while (round_index := await asyncio.to_thread(pipe.recv)) is not None:
        copy = own.copy()
        outgoing = OutgoingBody(round_index, copy, hashlib.sha256(copy.data).digest())
        pipe.send(None)
        await asyncio.to_thread(pipe.recv)
        pipe.send(await exchange(place, transport, own, outgoing))
    await transport.close()


async def connect(place: Place, transport: ZmqTransport) -> None:
    """Open ``transport`` and wait for both neighbours."""
    await transport.open()
    waiting = {name_of(number) for number in place.neighbours}
    while waiting:
        event = await transport.next_event()
        if isinstance(event, Connected):
            waiting.discard(event.name)


async def exchange(place: Place, transport: ZmqTransport, own: Any, outgoing: OutgoingBody) -> Times:
    """One round. It ends when the average is there, and returns when both neighbours have acknowledged the body."""
    neighbours = {name_of(number) for number in place.neighbours}
    begin, processor, before = time.monotonic(), time.process_time(), sent_bytes(transport)
    for name in neighbours:
        transport.send(name, outgoing)
    bodies: dict[str, Any] = {}
    unacknowledged = set(neighbours)
    end = 0.0
    while not end or unacknowledged:
        event = await transport.next_event()
        if isinstance(event, Delivered):
            unacknowledged.discard(event.name)
        elif isinstance(event, BodyReceived):
            bodies[event.name] = event.body
            if bodies.keys() == neighbours:
                parts = [(name, 1 / 3, body) for name, body in bodies.items()]
                await asyncio.to_thread(mix, own, name_of(place.number), 1 / 3, parts)
                end = time.monotonic()
                for body in bodies.values():
                    transport.free(body)
    return begin, end, time.process_time() - processor, sent_bytes(transport) - before


def sent_bytes(transport: ZmqTransport) -> int:
    """To all neighbours so far."""
    return sum(link.sent_bytes for link in transport.links().values())


def run_floor(place: Place, pipe: Connection) -> None:
    """The same with bare sockets."""
    before, after = place.neighbours
    with socket.create_server(("127.0.0.1", place.ports[2 * place.number])) as server:
        pipe.send(None)
        pipe.recv()
        forth = socket.create_connection(("127.0.0.1", place.ports[2 * after]))
        back, _ = server.accept()
    own = make_body(place)
    received = {before: np.empty_like(own), after: np.empty_like(own)}
    for end in (forth, back):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pipe.send(None)
    while pipe.recv() is not None:
        sent = own.copy()
        pipe.send(None)
        pipe.recv()
        begin, processor = time.monotonic(), time.process_time()
        work = [threading.Thread(target=each.sendall, args=(sent.data.cast("B"),)) for each in (forth, back)]
        work += [
            threading.Thread(target=receive, args=pair) for pair in ((forth, received[after]), (back, received[before]))
        ]
        for each in work:
            each.start()
        for each in work:
            each.join()
        parts = [(name_of(number), 1 / 3, body) for number, body in received.items()]
        mix(own, name_of(place.number), 1 / 3, parts)
        pipe.send((begin, time.monotonic(), time.process_time() - processor, 2 * own.nbytes))


def receive(source: socket.socket, body: Any) -> None:
    """Fill ``body`` from a socket."""
    target = body.data.cast("B")
    while target.nbytes:
        target = target[source.recv_into(target) :]


def make_body(place: Place) -> Any:
    """Random float32 numbers."""
    return np.random.default_rng(place.number).standard_normal(place.parameters, dtype=np.float32)


def start(place: Place, pipe: Connection) -> None:
    """What a process runs."""
    if place.variant == "floor":
        run_floor(place, pipe)
        return
    if place.variant == "clear":
        KeyExchange.derive = in_the_clear  # type: ignore[method-assign,assignment]
    asyncio.run(run_variant(place, pipe))


class Ring:
    """The four processes of one variant."""

    def __init__(
        self, variant: str, parameters: int, folder: Path, run: Callable[[Place, Connection], None] = start
    ) -> None:
        keys = tuple(TransportKeys(*zmq.curve_keypair()) for _ in range(SITES))
        ports = free_ports(2 * SITES)
        self._pipes, self._processes = [], []
        for number in range(SITES):
            place = Place(variant, number, parameters, folder / variant / name_of(number), keys, ports)
            near, far = SPAWN.Pipe()
            self._pipes.append(near)
            self._processes.append(SPAWN.Process(target=run, args=(place, far), daemon=True))
            self._processes[-1].start()
        self._answers()
        if variant == "floor":  # all listen before any connects
            self._ask(0)

    def round(self, number: int) -> tuple[float, float, int]:
        """Wall-clock seconds of a round, processor seconds of all four, and bytes that they sent."""
        self._ask(number)
        begins, ends, used, sent = zip(*self._ask(number), strict=True)
        return max(ends) - min(begins), sum(used), sum(sent)

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(10)

    def _ask(self, number: int) -> list[Times]:
        for pipe in self._pipes:
            pipe.send(number)
        return self._answers()

    def _answers(self) -> list[Any]:
        return [pipe.recv() for pipe in self._pipes]


def free_ports(count: int) -> tuple[int, ...]:
    """Ports that nobody uses now, and that no outgoing connection is given before they are bound."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as attempt:
            if port not in found and attempt.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return tuple(found)


def measure(small: bool = False, rounds: int = 7, variants: tuple[str, ...] = VARIANTS) -> dict[str, Any]:
    """Seconds a round of each variant, and their ratios."""
    SPAWN.set_forkserver_preload(["flop_p2p.transport", "flop_p2p.partial", "flop_p2p.node.egress"])
    with tempfile.TemporaryDirectory() as folder:
        rings = {each: Ring(each, SMALL if small else PARAMETERS, Path(folder)) for each in variants}
        turns = [{each: ring.round(number) for each, ring in rings.items()} for number in range(rounds + 1)][1:]
        for ring in rings.values():
            ring.close()
    figures: dict[str, Any] = {"parameters": SMALL if small else PARAMETERS, "rounds": rounds}
    for each in variants:
        figures[f"{each}_seconds"] = statistics.median(turn[each][0] for turn in turns)
        figures[f"{each}_processor_seconds"] = statistics.median(turn[each][1] for turn in turns)
    for above, below in (("sealed", "clear"), ("curve", "sealed"), ("sealed", "floor")):
        if {above, below} <= set(variants):
            ratios = [turn[above][0] / turn[below][0] for turn in turns]
            figures[f"{above}_to_{below}"] = statistics.median(ratios)
    return figures


def main() -> None:
    """Measure and print a small table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each variant has its turn")
    parser.add_argument("--small", action="store_true", help="small bodies, to see that it works")
    arguments = parser.parse_args()
    show(measure(arguments.small, arguments.rounds))


if __name__ == "__main__":
    main()
