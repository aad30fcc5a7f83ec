"""Masked gossip in virtual time: exact where nothing is lost; where much is, rounds are skipped and nothing stops."""

from random import Random

import numpy as np
import pytest
from masked_network import MaskedNetwork
from round_cases import mesh, only
from round_cases import node as plain_node
from test_virtual_network import first_bodies, gossip_plans, schedule_of, work
from virtual_network import GOSSIP, Weather

from flop_p2p.gossip.actions import Ask, Discard, Mix
from flop_p2p.gossip.protocol import RoundProtocol

MASKABLE = [("ring", 4), ("full", 5), ("random-regular:4", 8), ("exponential", 7), ("torus", 9)]


def collecting(declared: tuple[str, ...] = ()) -> RoundProtocol:
    """Site a of a mesh of four that has trained its first round; these neighbours have declared themselves present."""
    plan = mesh("a", "b", "c", "d")
    protocol = plain_node(plan, masked=True)
    protocol.start()
    for name in plan.neighbours(0):
        protocol.connected(name, 0, -1, False)
    protocol.trained()
    for name in declared:
        protocol.body_arrived(name, 0)
    return protocol


def test_all_who_declared_themselves_are_asked_together_and_their_sum_is_mixed() -> None:
    protocol = collecting(("b", "c"))
    ask = only(Ask, protocol.body_arrived("d", 0))
    assert (ask.round, ask.participants, ask.receivers) == (0, ("b", "c", "d"), ("b", "c", "d"))
    assert protocol.phase == "gathering"
    protocol.masked_body_arrived("b", 0)
    protocol.masked_body_arrived("d", 0)
    assert protocol.waiting_for == ("c",)
    mix = only(Mix, protocol.masked_body_arrived("c", 0))
    assert [(part.name, part.weight) for part in mix.parts] == [(name, pytest.approx(0.25)) for name in "bcd"]
    assert mix.own_weight == pytest.approx(0.25)


def test_who_did_not_declare_itself_is_left_out_and_its_weight_stays_here() -> None:
    protocol = collecting(("b", "c"))
    protocol.timer("deadline")
    ask = only(Ask, protocol.timer("deadline"))  # in the first round a neighbour may still be starting
    assert ask.participants == ("b", "c")
    protocol.masked_body_arrived("b", 0)
    mix = only(Mix, protocol.masked_body_arrived("c", 0))
    assert mix.own_weight == pytest.approx(0.5)
    assert mix.absent == ("d",)


@pytest.mark.parametrize("declared", [(), ("b",)])
def test_no_sum_is_formed_of_fewer_than_two(declared: tuple[str, ...]) -> None:
    protocol = collecting(declared)
    protocol.timer("deadline")
    actions = protocol.timer("deadline")
    assert not [action for action in actions if isinstance(action, Ask)]
    mix = only(Mix, actions)
    assert (mix.own_weight, mix.parts, mix.absent) == (1.0, (), ("b", "c", "d"))
    assert protocol.masked_skips == [0]


@pytest.mark.parametrize("happens", ["timer", "declined", "left"])
def test_without_one_that_is_on_the_list_the_round_is_skipped(happens: str) -> None:
    protocol = collecting(("b", "c", "d"))
    protocol.masked_body_arrived("b", 0)
    protocol.masked_body_arrived("c", 0)
    protocol.lost("d")
    assert protocol.phase == "gathering"
    event = {
        "timer": lambda: protocol.timer("deadline"),
        "declined": lambda: protocol.declined("d", 0),
        "left": lambda: protocol.left("d", 0, False),
    }[happens]
    mix = only(Mix, event())
    assert (mix.own_weight, mix.parts) == (1.0, ())
    assert protocol.masked_skips == [0]
    assert protocol.absences == {name: [0] for name in "bcd"}


def test_a_sender_that_comes_back_is_sent_the_same_list_again() -> None:
    protocol = collecting(("b", "c", "d"))
    protocol.masked_body_arrived("b", 0)
    protocol.lost("c")
    ask = only(Ask, protocol.connected("c", 0, 0, False))
    assert (ask.participants, ask.receivers) == (("b", "c", "d"), ("c",))
    assert not [action for action in protocol.connected("b", 0, 0, False) if isinstance(action, Ask)]


def test_a_declaration_that_is_taken_back_in_time_is_on_no_list() -> None:
    protocol = collecting(("b", "c"))
    assert Discard("b", 0, "declined") in protocol.declined("b", 0)
    ask = [only(Ask, protocol.body_arrived("d", 0))]
    assert ask[0].participants == ("c", "d")


def test_after_a_restart_the_round_that_was_published_is_not_asked_for_again() -> None:
    protocol = plain_node(mesh("a", "b", "c", "d"), masked=True, round_index=3, has_published=True)
    protocol.start()
    actions = [action for name in "bcd" for action in protocol.connected(name, 3, -1, False)]
    mix = only(Mix, actions)
    assert (mix.round, mix.parts) == (3, ())
    assert protocol.masked_skips == [3]


def test_a_masked_body_of_another_round_ends_nothing() -> None:
    protocol = collecting(("b", "c", "d"))
    for name in "bcd":
        assert protocol.masked_body_arrived(name, 1) == []
    assert protocol.phase == "gathering"


def test_of_two_thirds_of_the_senders_a_sum_is_formed_and_of_fewer_not() -> None:
    names = ("a", *(f"n{number}" for number in range(9)))
    for declared, gathers in ((6, True), (5, False)):
        protocol = plain_node(mesh(*names), masked=True)
        protocol.start()
        for name in names[1:]:
            protocol.connected(name, 0, -1, False)
        protocol.trained()
        for name in names[1 : 1 + declared]:
            protocol.body_arrived(name, 0)
        protocol.timer("deadline")
        actions = protocol.timer("deadline")
        assert any(isinstance(action, Ask) for action in actions) == gathers
        assert protocol.masked_skips == ([] if gathers else [0])


def test_a_sum_that_cannot_be_right_costs_the_round() -> None:
    protocol = collecting(("b", "c", "d"))
    for name in "bcd":
        protocol.masked_body_arrived(name, 0)
    assert protocol.phase == "mixing"
    protocol.not_mixed()
    assert (protocol.phase, protocol.round_index) == ("training", 1)
    assert protocol.masked_skips == [0]
    assert protocol.absences == {name: [0] for name in "bcd"}


def test_a_sum_that_cannot_be_right_does_not_catch_up() -> None:
    protocol = plain_node(mesh("a", "b", "c", "d"), masked=True, round_index=1)
    protocol.start()
    for name in "bcd":
        protocol.connected(name, 7, -1, False)
        protocol.body_arrived(name, 7)
    for name in "bcd":
        protocol.masked_body_arrived(name, 7)
    assert protocol.phase == "mixing"
    protocol.not_mixed()
    assert (protocol.phase, protocol.round_index, protocol.catch_ups) == ("training", 1, 0)


@pytest.mark.parametrize(("topology", "sites"), MASKABLE)
@pytest.mark.parametrize("seed", range(2))
def test_without_losses_it_is_the_product_of_the_mixing_matrices(topology: str, sites: int, seed: int) -> None:
    schedule = schedule_of(topology, sites, seed)
    bodies = first_bodies(schedule.sites, seed)
    network = MaskedNetwork(
        gossip_plans(schedule), bodies, 6, seed, work=work, training={"site-1": 3.0}, linger=GOSSIP.deadline
    )
    network.run(1000)
    expected = np.array([bodies[name] for name in schedule.sites])
    for round_index in range(6):
        expected = schedule.mixing(round_index) @ (expected + [work(name, round_index) for name in schedule.sites])
    reached = np.array([network.sites[name].body for name in schedule.sites])
    np.testing.assert_allclose(reached, expected, rtol=1e-6, atol=1e-9)
    assert all(site.complete for site in network.sites.values())
    assert not any(site.protocol.masked_skips or site.protocol.absences for site in network.sites.values())
    assert all(len(lists) == 1 for lists in network.answered.values())


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_everyone_alive_finishes_and_answers_one_list(seed: int) -> None:
    """Sites crash, restart, lose links and messages, or only receive from some round on.

    `MaskedSite` and `check_state` hold every step to the rules.
    """
    draw = Random(seed)
    schedule = schedule_of(draw.choice(["ring", "full", "random-regular:4", "torus"]), 9)
    loss = draw.choice([0.0, 0.05])
    network = MaskedNetwork(
        gossip_plans(schedule),
        first_bodies(schedule.sites),
        15,
        seed,
        weather=Weather(loss=loss),
        work=work,
        linger=GOSSIP.deadline,
        budgets={draw.choice(schedule.sites): draw.randrange(15)} if seed % 3 == 0 else {},
    )
    for _ in range(6):
        name, when = draw.choice(schedule.sites), draw.uniform(0, 40)
        network.at(when, lambda name=name: network.crash(name))
        network.at(when + draw.uniform(5, 20), lambda name=name: network.restart(name))
        one, other = draw.sample(schedule.sites, 2)
        network.at(when, lambda one=one, other=other: network.cut(one, other))
        network.at(when + 8, lambda one=one, other=other: network.mend(one, other))
    network.run(5000)
    assert all(site.complete for site in network.sites.values()), {
        name: (site.protocol.round_index, site.protocol.phase) for name, site in network.sites.items()
    }
    assert all(len(lists) == 1 for lists in network.answered.values() if lists)
    mixed = [mix for site in network.sites.values() for mix in site.mixes if mix.parts]
    assert all(len(mix.parts) >= 2 for mix in mixed)
    assert len(mixed) > 20
