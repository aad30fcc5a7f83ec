"""Whole networks of round protocols in virtual time: exact where nothing is lost, and alive where much is."""

from random import Random

import numpy as np
import pytest
from virtual_network import VirtualNetwork, Weather

from flop_p2p.config import GossipSettings, TopologySettings
from flop_p2p.gossip.plan import GossipPlan, Plan, StarPlan
from flop_p2p.topology import Schedule, build_schedule

WIDTH = 3


def schedule_of(topology: str, sites: int, seed: int = 0) -> Schedule:
    return build_schedule(TopologySettings(name=topology), [f"site-{i}" for i in range(sites)], seed=seed)


def gossip_plans(schedule: Schedule) -> dict[str, Plan]:
    return {name: GossipPlan(schedule, name) for name in schedule.sites}


def first_bodies(names: tuple[str, ...], seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.standard_normal(WIDTH) for name in names}


@pytest.mark.parametrize(
    ("topology", "sites"),
    [
        *[("ring", 2), ("ring", 5), ("full", 4), ("path", 4), ("star", 5), ("exponential", 7)],
        *[("one-peer-exponential", 6), ("base:1", 5), ("base:2", 7), ("epidemic:2", 6)],
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_without_losses_it_is_the_product_of_the_mixing_matrices(topology: str, sites: int, seed: int) -> None:
    rounds = 6
    schedule = schedule_of(topology, sites, seed)
    bodies = first_bodies(schedule.sites, seed)
    network = VirtualNetwork(gossip_plans(schedule), bodies, rounds, seed)
    network.run(1000)
    expected = np.array([bodies[name] for name in schedule.sites])
    for round_index in range(rounds):
        expected = schedule.mixing(round_index) @ expected
    reached = np.array([network.sites[name].body for name in schedule.sites])
    np.testing.assert_allclose(reached, expected, rtol=1e-6, atol=1e-9)
    assert all(site.complete for site in network.sites.values())
    assert not network.discarded
    assert network.resent == 0


def stormy(seed: int) -> VirtualNetwork:
    """A network whose topology, settings, weather and misfortunes are all drawn from ``seed``."""
    draw = Random(seed)
    count, rounds = draw.randint(2, 6), draw.randint(3, 10)
    kind = draw.choice(
        ["ring", "full", "one-peer-exponential", "base:1", "exponential", "epidemic:1", "path", "server"]
    )
    schedule = schedule_of("ring" if kind == "server" else kind, count, seed)
    names: tuple[str, ...] = schedule.sites
    plans = gossip_plans(schedule)
    if kind == "server":
        names = (*names, "server")
        plans = {
            name: StarPlan("server", {site: draw.randint(1, 9) for site in schedule.sites}, name) for name in names
        }
    gossip = GossipSettings(
        deadline=draw.choice([3, 10]),
        staleness=draw.choice([0, 1, 1, 2]),
        start_timeout=draw.choice([5, 20]),
        min_neighbours=draw.choice([0, 1]),
        isolated=draw.choice(["train", "train", "wait"]),
        heartbeat=1,
        lost_after=draw.choice([2, 4]),
    )
    slow = draw.choice([1, 1, 4, 20])
    weather = Weather(
        transfer=(0.05, draw.choice([0.3, 3.0, 12.0])),
        loss=draw.choice([0, 0, 0.05, 0.3]),
        duplication=draw.choice([0, 0.2]),
    )
    network = VirtualNetwork(
        plans,
        first_bodies(names, seed),
        rounds,
        seed,
        gossip=gossip,
        weather=weather,
        training={name: draw.uniform(0.3, 2) * (slow if draw.random() < 0.2 else 1) for name in names},
        starts={name: draw.uniform(0, 40) for name in names if draw.random() < 0.2},
        linger=draw.choice([0, 10]),
    )
    for _ in range(draw.randint(0, 6)):
        name, other = draw.choice(names), draw.choice(names)
        when, pause = draw.uniform(0, 60), draw.choice([0.5, 5, 30, 100])
        match draw.choice(["crash", "crash", "crash for good", "stop", "stop for good", "cut"]):
            case "cut" if other != name:
                network.at(when, lambda a=name, b=other: network.cut(a, b))
                network.at(when + pause, lambda a=name, b=other: network.mend(a, b))
            case "crash":
                network.at(when, lambda a=name: network.crash(a))
                network.at(when + pause, lambda a=name: network.restart(a))
            case "crash for good":
                network.at(when, lambda a=name: network.crash(a))
            case "stop":
                network.at(when, lambda a=name: network.stop(a))
                network.at(when + pause + 30, lambda a=name: network.restart(a))
            case "stop for good":
                network.at(when, lambda a=name: network.stop(a))
    return network


def check_alive(network: VirtualNetwork) -> None:
    """Everyone that runs has finished, but for those that are to wait for others that are not there."""
    running = {name for name, site in network.sites.items() if site.running}
    for name in sorted(running):
        site = network.sites[name]
        near = [other for other in running if other in site.protocol.plan.neighbours(0)]
        waits = network.gossip.isolated == "wait" or site.protocol.phase == "starting" or name == "server"
        assert waits, f"{name} did not finish: round {site.protocol.round_index}, phase {site.protocol.phase}"
        assert not near, (
            f"{name} waits in vain in round {site.protocol.round_index}, {site.protocol.phase}, beside {near}"
        )


BLOCK = 50


@pytest.mark.parametrize("block", range(8))
def test_whatever_happens_everyone_alive_finishes(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        try:
            network = stormy(seed)
            bodies = np.array([checkpoint.body for checkpoint in network.checkpoints.values()])
            network.run(3_000)
            check_alive(network)
            for site in network.sites.values():
                assert not (site.complete and site.bodies), f"{site.name} still holds {site.bodies.keys()}"
                assert (site.body >= bodies.min(axis=0) - 1e-9).all()
                assert (site.body <= bodies.max(axis=0) + 1e-9).all()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
