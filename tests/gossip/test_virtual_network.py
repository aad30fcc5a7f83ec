"""Whole networks of round protocols in virtual time: exact where nothing is lost, and alive where much is."""

from random import Random

import numpy as np
import pytest
from virtual_network import GOSSIP, VirtualNetwork, Weather

from flop_p2p.config import GossipSettings, TopologySettings
from flop_p2p.config.topology import Edge, TopologyFile
from flop_p2p.gossip.plan import GossipPlan, Plan, RevisedPlan, StarPlan
from flop_p2p.topology import Schedule, build_schedule

WIDTH = 3
TWO_LOOPS = ((0, 1), (1, 2), (2, 3), (3, 0), (1, 4), (4, 5), (5, 6), (6, 7), (7, 1), (6, 2))


def one_way(*edges: tuple[int, int]) -> Schedule:
    """Sites 0 to n, and edges from senders to receivers."""
    names = tuple(f"site-{i}" for i in range(max(max(edge) for edge in edges) + 1))
    file = TopologyFile(sites=names, edges=tuple(Edge(names[i], names[j]) for i, j in edges), directed=True)
    return build_schedule(TopologySettings(name="one-way.toml"), names, file=file)


def schedule_of(topology: str, sites: int, seed: int = 0) -> Schedule:
    if topology == "directed ring":
        return one_way(*[(i, (i + 1) % sites) for i in range(sites)])
    if topology == "two loops":
        return one_way(*TWO_LOOPS)
    return build_schedule(TopologySettings(name=topology), [f"site-{i}" for i in range(sites)], seed=seed)


def gossip_plans(schedule: Schedule) -> dict[str, Plan]:
    return {name: GossipPlan(schedule, name) for name in schedule.sites}


def first_bodies(names: tuple[str, ...], seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.standard_normal(WIDTH) for name in names}


def work(name: str, round_index: int) -> np.ndarray:
    """What a site learns in a round: something of its own."""
    return np.random.default_rng([round_index, *name.encode()]).standard_normal(WIDTH)


TOPOLOGIES = [
    *[("ring", 2), ("ring", 5), ("full", 4), ("path", 4), ("star", 5), ("exponential", 7), ("directed ring", 5)],
    *[("one-peer-exponential", 6), ("base:1", 5), ("base:2", 7), ("epidemic:2", 6)],
]


def check_equal_to_matrices(network: VirtualNetwork, schedule: Schedule, bodies: dict[str, np.ndarray]) -> None:
    """The bodies are what the matrix product says, and nothing was lost, sent twice or waited for in vain."""
    expected = np.array([bodies[name] for name in schedule.sites])
    for round_index in range(network.rounds):
        expected = schedule.mixing(round_index) @ (expected + [work(name, round_index) for name in schedule.sites])
    reached = np.array([network.sites[name].body for name in schedule.sites])
    np.testing.assert_allclose(reached, expected, rtol=1e-6, atol=1e-9)
    assert all(site.complete for site in network.sites.values())
    assert not network.discarded
    assert network.resent == 0
    assert not any(site.protocol.absences for site in network.sites.values())


@pytest.mark.parametrize(("topology", "sites"), TOPOLOGIES)
@pytest.mark.parametrize("seed", range(3))
def test_without_losses_it_is_the_product_of_the_mixing_matrices(topology: str, sites: int, seed: int) -> None:
    schedule = schedule_of(topology, sites, seed)
    bodies = first_bodies(schedule.sites, seed)
    network = VirtualNetwork(gossip_plans(schedule), bodies, 6, seed, work=work)
    network.run(1000)
    check_equal_to_matrices(network, schedule, bodies)


ANY = ["ring", "full", "path", "star", "one-peer-exponential", "base:1", "base:2", "directed ring", "epidemic:1"]


@pytest.mark.parametrize("topology", ANY)
@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_slow_sites_late_starts_and_duplicates_change_nothing(topology: str, staleness: int) -> None:
    schedule = schedule_of(topology, 8)
    bodies = first_bodies(schedule.sites)
    network = VirtualNetwork(
        gossip_plans(schedule),
        bodies,
        10,
        staleness,
        gossip=GOSSIP.model_copy(update={"deadline": 60, "staleness": staleness}),
        weather=Weather(transfer=(0.0, 2.0), duplication=0.3),
        training={"site-1": 6.0, "site-4": 0.01},
        starts={"site-3": 15.0},
        work=work,
    )
    network.run(1000)
    check_equal_to_matrices(network, schedule, bodies)


ONE_WAY = [
    *[("directed ring", 8), ("two loops", 8), ("exponential", 7), ("one-peer-exponential", 7)],
    *[("epidemic:1", 6), ("epidemic:2", 6)],
]


@pytest.mark.parametrize(("topology", "sites"), ONE_WAY)
@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_no_sender_runs_away_from_a_receiver_that_it_need_not_hear_from(
    topology: str, sites: int, staleness: int, seed: int
) -> None:
    """Speeds that differ by two orders of magnitude, by site: nobody is left behind, nothing superseded."""
    schedule = schedule_of(topology, sites, seed)
    bodies, draw = first_bodies(schedule.sites, seed), Random(seed)
    network = VirtualNetwork(
        gossip_plans(schedule),
        bodies,
        15,
        seed,
        gossip=GOSSIP.model_copy(update={"deadline": 60, "staleness": staleness}),
        weather=Weather(transfer=(0.0, 2.0)),
        training={name: 10 ** draw.uniform(-1.5, 0.7) for name in schedule.sites},
        work=work,
        linger=60,
    )
    network.run(2000)
    check_equal_to_matrices(network, schedule, bodies)
    assert not any(site.protocol.catch_ups for site in network.sites.values())


def star_plans(shares: dict[str, float]) -> dict[str, Plan]:
    return {name: StarPlan("server", shares, name) for name in ("server", *shares)}


@pytest.mark.parametrize("seed", range(3))
def test_a_server_reaches_the_weighted_mean_in_every_round(seed: int) -> None:
    shares = {"ada": 5.0, "bob": 2.0, "cleo": 1.0}
    bodies = first_bodies(("server", *shares), seed)
    network = VirtualNetwork(star_plans(shares), bodies, 5, seed, training={"bob": 4.0}, work=work)
    network.run(1000)
    total = sum(shares.values())
    expected = sum(shares[name] * (bodies[name] + work(name, 0)) for name in shares) / total
    for round_index in range(1, 5):
        expected = expected + sum(shares[name] * work(name, round_index) for name in shares) / total
    for site in network.sites.values():
        np.testing.assert_allclose(site.body, expected, rtol=1e-6)
        assert site.complete
    assert not network.discarded


@pytest.mark.parametrize(
    "kind", ["ring", "full", "base:1", "one-peer-exponential", "exponential", "directed ring", "server"]
)
@pytest.mark.parametrize("pause", [1, 6, 20])
def test_a_killed_site_comes_back_and_costs_the_others_one_deadline(kind: str, pause: float) -> None:
    plans = star_plans({f"site-{i}": 1.0 for i in range(4)}) if kind == "server" else gossip_plans(schedule_of(kind, 4))
    undisturbed = VirtualNetwork(plans, first_bodies(tuple(plans)), 15, 1, linger=10)
    undisturbed.run(1000)
    network = VirtualNetwork(plans, first_bodies(tuple(plans)), 15, 1, linger=10)
    network.at(5, lambda: network.crash("site-1"))
    network.at(5 + pause, lambda: network.restart("site-1"))
    network.run(1000)
    assert all(site.complete for site in network.sites.values())
    back = network.sites["site-1"]
    assert len(back.trained) >= 2
    assert back.protocol.catch_ups == (pause == 20)
    for name, site in network.sites.items():
        if name != "site-1":
            assert site.protocol.catch_ups == 0
            assert site.seen[2] <= undisturbed.sites[name].seen[2] + min(pause, GOSSIP.deadline) + 4


@pytest.mark.parametrize("kind", ["ring", "full", "server"])
def test_a_site_that_trained_on_alone_does_not_end_the_others_rounds(kind: str) -> None:
    plans = star_plans({f"site-{i}": 1.0 for i in range(4)}) if kind == "server" else gossip_plans(schedule_of(kind, 4))
    network = VirtualNetwork(plans, first_bodies(tuple(plans)), 40, 1, training={"site-1": 0.1}, linger=100)
    for other in plans.keys() - {"site-1"}:
        network.at(3, lambda other=other: network.cut("site-1", other))
        network.at(40, lambda other=other: network.mend("site-1", other))
    network.run(1000)
    for name, site in network.sites.items():
        assert site.complete
        assert site.protocol.catch_ups == 0
        assert name == "server" or site.trained == list(range(40))
    assert network.sites["site-1"].seen[2] < 45 < network.sites["site-2"].seen[2]


def growing_plans(topology: str, sites: int, first_round: int) -> dict[str, Plan]:
    """Plans of so many sites, and of one more from ``first_round`` on."""
    before, after = schedule_of(topology, sites), schedule_of(topology, sites + 1)
    parts = {name: (first_round, GossipPlan(after, name)) for name in after.sites}
    plans: dict[str, Plan] = {name: RevisedPlan([(0, GossipPlan(before, name)), parts[name]]) for name in before.sites}
    return plans | {after.sites[-1]: RevisedPlan([parts[after.sites[-1]]])}


@pytest.mark.parametrize("topology", ["ring", "full", "base:1", "exponential", "epidemic:2"])
@pytest.mark.parametrize("first_round", [1, 8])
def test_a_site_joins_in_the_round_of_its_revision(topology: str, first_round: int) -> None:
    plans = growing_plans(topology, 4, first_round)
    network = VirtualNetwork(plans, first_bodies(tuple(plans)), 15, 1, first_rounds={"site-4": first_round})
    network.run(1000)
    assert all(site.complete for site in network.sites.values())
    assert network.sites["site-4"].trained == list(range(first_round, 15))
    assert not any(site.protocol.absences for site in network.sites.values())


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("kind", ["ring", "full", "one-peer-exponential", "directed ring", "server"])
def test_nobody_waits_for_those_whose_budget_is_spent(kind: str, staleness: int) -> None:
    if kind == "server":
        plans: dict[str, Plan] = dict(star_plans({f"site-{number}": 1.0 for number in range(4)}))
    else:
        plans = dict(gossip_plans(schedule_of(kind, 4, 0)))
    budgets = {name: 3 + 2 * number for number, name in enumerate(sorted(plans)[:3]) if name != "server"}
    gossip = GossipSettings(deadline=500, staleness=staleness, start_timeout=20, heartbeat=1, lost_after=3)
    network = VirtualNetwork(plans, first_bodies(tuple(plans)), 12, 1, gossip=gossip, budgets=budgets)
    network.run(200)
    for name, site in network.sites.items():
        assert site.complete, f"{name} waits in round {site.protocol.round_index}"
        assert site.protocol.catch_ups == 0
        assert site.protocol.published == budgets.get(name, 12) - 1
        for mix in site.mixes:
            assert {part.name for part in mix.parts} == {
                other for other in plans[name].weights(mix.round).keys() - {name} if mix.round < budgets.get(other, 12)
            }


KINDS = ["ring", "full", "one-peer-exponential", "base:1", "exponential", "epidemic:1", "path", "directed ring"]


def stormy(seed: int, private: bool = False) -> VirtualNetwork:
    """A network whose topology, settings, weather and misfortunes are all drawn from ``seed``.

    Of a ``private`` one most sites come to the end of their privacy budget.
    """
    draw = Random(seed)
    count, rounds = draw.randint(2, 6), draw.randint(3, 10)
    kind = draw.choice([*KINDS, "server"])
    first_rounds = {}
    if kind == "server":
        plans = star_plans({f"site-{number}": float(draw.randint(1, 9)) for number in range(count)})
    elif draw.random() < 0.25:
        first_rounds[f"site-{count}"] = draw.randint(1, rounds - 1)
        plans = growing_plans("ring" if count < 3 else kind, count, first_rounds[f"site-{count}"])
    else:
        plans = gossip_plans(schedule_of(kind, count, seed))
    names = tuple(plans)
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
        overtaking=draw.choice([False, True]),
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
        first_rounds=first_rounds,
        linger=draw.choice([0, 10]),
    )
    if private:
        spend = Random(f"budgets {seed}")
        network.budgets = {name: spend.randint(0, rounds) for name in names if name != "server"}
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
        near = [other for other in running if network.are_neighbours(name, other)]
        waits = network.gossip.isolated == "wait" or site.protocol.phase == "starting" or name == "server"
        assert waits, f"{name} did not finish: round {site.protocol.round_index}, phase {site.protocol.phase}"
        assert not near, (
            f"{name} waits in vain in round {site.protocol.round_index}, {site.protocol.phase}, beside {near}"
        )


BLOCK = 30


@pytest.mark.parametrize(
    ("block", "private"), [*((block, False) for block in range(8)), (0, True), (1, True), (2, True)]
)
def test_whatever_happens_everyone_alive_finishes(block: int, private: bool) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        try:
            network = stormy(seed, private)
            bodies = np.array([checkpoint.body for checkpoint in network.checkpoints.values()])
            network.run(3_000)
            check_alive(network)
            for site in network.sites.values():
                assert not (site.complete and site.bodies), f"{site.name} still holds {site.bodies.keys()}"
                assert (site.body >= bodies.min(axis=0) - 1e-9).all()
                assert (site.body <= bodies.max(axis=0) + 1e-9).all()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
