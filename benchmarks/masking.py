"""What masked gossip costs: four neighbours on a ring exchange and average ResNet-18 bodies, with masks and without.

The processes, the transport and the floor are those of `wire.py`. ``masked`` runs the round protocol and the courier of
the daemon: declarations, lists of participants, fixed-point numbers, a mask for each receiver, the hash of each masked
body, the sum. Without masks one hash does for all receivers and is taken before the clock starts; with masks every
receiver gets other bytes, and all of that is inside the clock. No training, no checkpoint; the egress log is on disk.

    python benchmarks/masking.py [--rounds 7] [--small]
"""

import argparse
import asyncio
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from machine import show
from wire import PARAMETERS, SITES, SMALL, SPAWN, Place, Ring, Times, connect, make_body, make_transport, name_of
from wire import sent_bytes as bytes_of

from flop_p2p.config import TopologySettings
from flop_p2p.config.gossip import GossipSettings
from flop_p2p.gossip.actions import Action, Ask, Discard, Mix, Publish
from flop_p2p.gossip.fixed_point import FixedPoint
from flop_p2p.gossip.plan import GossipPlan
from flop_p2p.gossip.protocol import RoundProtocol
from flop_p2p.node.masked_courier import MaskedCourier
from flop_p2p.topology import build_schedule
from flop_p2p.transport import BodyReceived, Delivered, ZmqTransport
from flop_p2p.transport.base import Said

MANY = 10_000  # rounds
LIMIT = 64.0


@dataclass
class Model:
    """A body without a model around it, as `flop_p2p.node.worker.SiteModel` is to the courier."""

    name: str
    body: Any

    def copy_of_body(self) -> Any:
        """The body as it is now."""
        return self.body.copy()

    def mix_masked(self, fixed_point: FixedPoint, own: float, parts: Any, share: float, factor: float) -> None:
        """See `SiteModel.mix_masked`."""
        fixed_point.mix(self.body, own, parts, share, factor)


def signing_key(number: int) -> Ed25519PrivateKey:
    """Every process can make those of all; only here."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name_of(number).encode()).digest())


class Site:
    """A driver without training, timers and files."""

    def __init__(self, place: Place, transport: ZmqTransport) -> None:
        schedule = build_schedule(TopologySettings(name="ring"), [name_of(number) for number in range(SITES)])
        name = name_of(place.number)
        self._transport = transport
        self._model = Model(name, make_body(place))
        self._protocol = RoundProtocol(name, GossipPlan(schedule, name), GossipSettings(), MANY, masked=True)
        keys = {name_of(number): signing_key(number).public_key().public_bytes_raw() for number in range(SITES)}
        federation: Any = SimpleNamespace(id="f" * 64)
        self._courier = MaskedCourier(
            self._protocol,
            self._model,  # type: ignore[arg-type]
            transport,
            SimpleNamespace(save=lambda *_: None),  # type: ignore[arg-type]
            asyncio.to_thread,
            signing=signing_key(place.number),
            federation=lambda _: federation,
            signing_keys=lambda name, _: (keys[name],),
            fixed_point=FixedPoint(LIMIT),
            declared=SimpleNamespace(before=-1, declare=lambda _: None),  # type: ignore[arg-type]
        )
        for number in place.neighbours:
            self._protocol.connected(name_of(number), 0, -1, False)
        self._protocol.start()

    async def round(self) -> Times:
        """One exchange; it ends when the average is there, and returns when both neighbours have acknowledged."""
        begin, processor, before = time.monotonic(), time.process_time(), bytes_of(self._transport)
        self._mixed, unacknowledged = 0.0, 2
        await self._perform(self._protocol.trained())
        while not self._mixed or unacknowledged:
            match event := await self._transport.next_event():
                case Delivered():
                    unacknowledged -= 1
                case BodyReceived():
                    await self._perform(self._courier.arrived(event))
                case Said():
                    await self._perform(self._courier.said(event))
        return begin, self._mixed, time.process_time() - processor, bytes_of(self._transport) - before

    async def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Publish(round_index, receivers):
                    await self._courier.publish(round_index, receivers)
                case Ask():
                    self._courier.ask(action)
                case Mix():
                    await self._mix(action)
                case Discard(name, round_index):
                    self._courier.drop(name, round_index)

    async def _mix(self, action: Mix) -> None:
        if len(action.parts) != 2:
            raise RuntimeError(f"a round without both neighbours: {action}")
        await asyncio.to_thread(self._courier.mix, action)
        self._mixed = time.monotonic()
        for part in action.parts:
            self._courier.drop(part.name, part.round)
        await self._perform(self._protocol.mixed())


async def run_masked(place: Place, pipe: Connection) -> None:
    """Exchange whenever the parent asks."""
    transport = make_transport(place, masked=True)
    await connect(place, transport)
    site = Site(place, transport)
    pipe.send(None)
    while await asyncio.to_thread(pipe.recv) is not None:
        pipe.send(None)
        await asyncio.to_thread(pipe.recv)
        pipe.send(await site.round())
    await transport.close()


def start(place: Place, pipe: Connection) -> None:
    """What a process runs."""
    asyncio.run(run_masked(place, pipe))


def deviation() -> float:
    """The relative error of a sum of two bodies in fixed point against the same in float64."""
    draw = np.random.default_rng(0)
    bodies = [draw.normal(0, 0.05, SMALL).astype(np.float32) for _ in range(2)]
    fixed, found = FixedPoint(LIMIT), np.zeros(SMALL, np.float32)
    fixed.mix(found, 0.0, [fixed.encode(body, 1 / 3) for body in bodies], 2 / 3)
    exact = sum(body.astype(np.float64) for body in bodies) / 3
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def measure(small: bool = False, rounds: int = 7) -> dict[str, Any]:
    """Seconds and bytes of a round with and without masks, and their ratios."""
    SPAWN.set_forkserver_preload(["flop_p2p.transport", "flop_p2p.partial", "flop_p2p.node.masked_courier"])
    parameters = SMALL if small else PARAMETERS
    with tempfile.TemporaryDirectory() as folder:
        rings = {each: Ring(each, parameters, Path(folder)) for each in ("floor", "sealed")}
        rings["masked"] = Ring("masked", parameters, Path(folder), run=start)
        turns = [{each: ring.round(number) for each, ring in rings.items()} for number in range(rounds + 1)][1:]
        for ring in rings.values():
            ring.close()
    median: Callable[[str, int], float] = lambda each, which: statistics.median(turn[each][which] for turn in turns)  # noqa: E731
    figures: dict[str, Any] = {"parameters": parameters, "rounds": rounds}
    for each in rings:
        figures[f"{each}_seconds"] = median(each, 0)
        figures[f"{each}_processor_seconds"] = median(each, 1)
        figures[f"{each}_bytes"] = int(median(each, 2))
    for above, below in (("masked", "sealed"), ("masked", "floor")):
        figures[f"{above}_to_{below}"] = statistics.median(turn[above][0] / turn[below][0] for turn in turns)
    figures["masked_to_sealed_bytes"] = figures["masked_bytes"] / figures["sealed_bytes"]
    return figures | {"relative_error_of_a_sum": deviation()}


def main() -> None:
    """Measure and print a small table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each variant has its turn")
    parser.add_argument("--small", action="store_true", help="small bodies, to see that it works")
    arguments = parser.parse_args()
    show(measure(arguments.small, arguments.rounds))


if __name__ == "__main__":
    main()
