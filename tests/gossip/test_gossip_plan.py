"""Plans: a site's part in a schedule, in a star, and over the revisions of a federation."""

from typing import Any

import numpy as np
import pytest

from flop_p2p.config import FederationSettings, Member, TopologySettings
from flop_p2p.errors import FederationError, TopologyError
from flop_p2p.gossip.plan import GossipPlan, RevisedPlan, StarPlan, build_plan
from flop_p2p.topology import build_schedule

NAMES = ("ada", "bob", "cleo", "dan", "eve")
TOPOLOGIES = ("ring", "full", "star", "exponential", "one-peer-exponential", "base:1", "base:2", "epidemic:2")


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_plans_of_all_sites_together_are_the_mixing_matrices(topology: str) -> None:
    schedule = build_schedule(TopologySettings(name=topology), NAMES, seed=3)
    plans = {name: GossipPlan(schedule, name) for name in NAMES}
    for round_index in range(7):
        W = schedule.mixing(round_index).toarray()
        for i, site in enumerate(NAMES):
            row = plans[site].weights(round_index)
            np.testing.assert_array_equal([row.get(name, 0.0) for name in NAMES], W[i])
            assert 0.0 not in row.values()
            sends_to = [name for j, name in enumerate(NAMES) if j != i and W[j, i] != 0]
            assert list(plans[site].receivers(round_index)) == sends_to
            others = {name for name in row if name != site} | set(sends_to)
            assert others <= set(plans[site].neighbours(round_index))


@pytest.mark.parametrize("topology", TOPOLOGIES[:-1])
def test_neighbours_are_those_of_a_whole_period(topology: str) -> None:
    schedule = build_schedule(TopologySettings(name=topology), NAMES)
    links = sum(abs(schedule.mixing(index).toarray()) for index in range(schedule.period or 1))
    for i, site in enumerate(NAMES):
        met = [name for j, name in enumerate(NAMES) if j != i and (links[i, j] or links[j, i])]
        assert list(GossipPlan(schedule, site).neighbours(0)) == met


def test_with_random_rounds_everyone_is_a_neighbour() -> None:
    schedule = build_schedule(TopologySettings(name="epidemic:1"), NAMES)
    assert GossipPlan(schedule, "bob").neighbours(4) == ("ada", "cleo", "dan", "eve")


def test_names_come_in_ascending_order_whatever_that_of_the_schedule() -> None:
    schedule = build_schedule(TopologySettings(name="full"), ("dan", "ada", "cleo"))
    plan = GossipPlan(schedule, "cleo")
    assert plan.receivers(0) == plan.neighbours(0) == ("ada", "dan")


def test_a_star_weighs_by_samples_and_hands_the_mean_on_as_it_is() -> None:
    samples = {"ada": 30.0, "bob": 10.0}
    server, site = StarPlan("server", samples, "server"), StarPlan("server", samples, "ada")
    assert server.weights(0) == {"server": 0.0, "ada": 0.75, "bob": 0.25}
    assert server.receivers(5) == server.neighbours(5) == ("ada", "bob")
    assert not server.trains
    assert site.weights(0) == {"server": 1.0, "ada": 0.0}
    assert site.receivers(0) == site.neighbours(0) == ("server",)
    assert site.trains
    assert site.patience == 2 * server.patience


def test_each_revision_holds_from_its_round_on() -> None:
    small = build_schedule(TopologySettings(name="full"), NAMES[:2])
    large = build_schedule(TopologySettings(name="full"), NAMES[:3])
    plan = RevisedPlan([(0, GossipPlan(small, "ada")), (4, GossipPlan(large, "ada"))])
    assert [plan.neighbours(index) for index in (3, 4)] == [("bob",), ("bob", "cleo")]
    assert [len(plan.weights(index)) for index in (3, 4)] == [2, 3]
    assert [plan.receivers(index) for index in (0, 9)] == [("bob",), ("bob", "cleo")]


def test_who_joins_later_knows_no_plan_before_its_first() -> None:
    schedule = build_schedule(TopologySettings(name="ring"), NAMES)
    plan = RevisedPlan([(7, GossipPlan(schedule, "ada"))])
    assert plan.neighbours(-1) == plan.neighbours(7) == ("bob", "eve")


def federation(server: bool = False, **changes: Any) -> FederationSettings:
    samples = changes.pop("samples_of_sites", {})
    members = [
        Member(name=name, curve_key="k" * 40, signing_key="0" * 64, samples=samples.get(name)) for name in NAMES[:3]
    ]
    if server:
        members.append(Member(name="hub", role="server", curve_key="k" * 40, signing_key="0" * 64))
    values = {
        "name": "trial",
        "samples": {"task": "multiclass", "class_names": ["no", "yes"], "shape": [4]},
        "members": [member.model_dump() for member in members],
        **changes,
    }
    return FederationSettings.model_validate(values)


def test_the_plan_of_a_federation_follows_its_method() -> None:
    gossip = build_plan(federation(topology={"name": "full"}), "bob")
    assert gossip.neighbours(0) == ("ada", "cleo")
    star = federation(server=True, method="flop")
    assert build_plan(star, "hub").weights(0) == {"hub": 0.0, **dict.fromkeys(NAMES[:3], 1 / 3)}
    assert build_plan(star, "bob").neighbours(0) == ("hub",)


@pytest.mark.parametrize("server", [True, False])
def test_weighting_by_samples_reaches_the_plan(server: bool) -> None:
    weighed = federation(
        server=server,
        method="flop" if server else "p2p-flop",
        topology={"name": "full", "weighting": "samples"},
        samples_of_sites={"ada": 50, "bob": 30, "cleo": 20},
    )
    weights = build_plan(weighed, "hub" if server else "bob").weights(0)
    assert {name: weights[name] for name in NAMES[:3]} == pytest.approx({"ada": 0.5, "bob": 0.3, "cleo": 0.2})


@pytest.mark.parametrize(
    ("settings", "name", "error", "message"),
    [
        ({}, "zoe", FederationError, "zoe"),
        ({"server": True, "method": "flop"}, "zoe", FederationError, "zoe"),
        ({"server": True}, "hub", FederationError, "hub"),
        ({"method": "flop"}, "ada", FederationError, "role 'server', found 0"),
        ({"topology": {"weighting": "samples"}}, "ada", TopologyError, "weighting by samples.*'ada'"),
        (
            {"server": True, "method": "flop", "topology": {"weighting": "samples"}, "samples_of_sites": {"ada": 4}},
            "ada",
            FederationError,
            "number of samples of member 'bob'",
        ),
    ],
)
def test_what_cannot_be_planned_is_named(
    settings: dict[str, Any], name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_plan(federation(**settings), name)
