"""Stopping, servers, revisions, and events that make no sense."""

from typing import Any

import pytest
from round_cases import DEADLINE, ROUNDS, THIRD, collecting, mesh, mixed_names, node, only, pass_round, started

from flop_p2p.errors import NodeError
from flop_p2p.gossip.actions import (
    CancelTimer,
    Discard,
    Finish,
    Mix,
    Part,
    Publish,
    Resend,
    SetTimer,
    Train,
)
from flop_p2p.gossip.plan import Plan, RevisedPlan, StarPlan
from flop_p2p.gossip.protocol import RoundProtocol

# Stopping


@pytest.mark.parametrize("phase", ["starting", "training", "catching-up"])
def test_stopping_where_nothing_is_exchanged_ends_it_at_once(phase: str) -> None:
    protocol = node(round_index=3) if phase == "starting" else started(round_index=3)
    if phase == "starting":
        protocol.start()
    if phase == "catching-up":
        protocol.progress("b", 6)
        protocol.progress("c", 6)
        protocol.trained()
    assert protocol.phase == phase
    assert protocol.stop()[-1] == Finish(False)
    assert protocol.connected("b", 0, -1, False) == []
    assert protocol.timer("start") == protocol.timer("deadline") == protocol.trained() == []


def test_stopping_while_collecting_ends_it_after_the_mixing() -> None:
    protocol = collecting(round_index=3)
    assert protocol.stop() == []
    protocol.body_arrived("b", 3)
    protocol.body_arrived("c", 3)
    assert protocol.mixed() == [Finish(False)]
    assert (protocol.round_index, protocol.published, protocol.phase) == (4, 3, "training")


def test_stopping_while_mixing_ends_it_after_that() -> None:
    protocol = collecting(round_index=3)
    protocol.timer("deadline")
    assert protocol.stop() == []
    assert protocol.mixed() == [Finish(False)]


def test_stopping_while_alone_ends_it_at_once() -> None:
    protocol = started(settings={"isolated": "wait"}, round_index=1)
    protocol.lost("b")
    protocol.lost("c")
    protocol.trained()
    protocol.timer("deadline")
    assert protocol.stop() == [Finish(False)]


def test_stopping_in_the_last_round_still_completes_it() -> None:
    protocol = collecting(round_index=ROUNDS - 1)
    protocol.stop()
    protocol.timer("deadline")
    assert protocol.mixed() == [Finish(True)]


# A server


def star(name: str, **at: Any) -> RoundProtocol:
    return node(StarPlan("server", {"a": 1.0, "b": 2.0, "c": 1.0}, name), name, **at)


def server(**at: Any) -> RoundProtocol:
    protocol = star("server", **at)
    protocol.start()
    for name in ("a", "b", "c"):
        protocol.connected(name, protocol.round_index, -1, False)
    assert protocol.phase == "collecting"
    return protocol


def test_a_server_averages_and_then_publishes() -> None:
    protocol = server()
    assert protocol.body_arrived("a", 0) == [DEADLINE]
    protocol.body_arrived("b", 0)
    parts = (Part("a", 0, 0.25), Part("b", 0, 0.5), Part("c", 0, 0.25))
    assert protocol.body_arrived("c", 0) == [CancelTimer("deadline"), Mix(0, 0.0, parts)]
    assert protocol.mixed() == [Publish(0, ("a", "b", "c"))]
    assert (protocol.phase, protocol.round_index) == ("collecting", 1)


def test_at_a_server_those_that_came_share_the_weight_of_the_absent() -> None:
    protocol = server()
    protocol.body_arrived("a", 0)
    protocol.body_arrived("b", 0)
    mix = only(Mix, protocol.timer("deadline"))
    assert mix == Mix(0, 0.0, (Part("a", 0, THIRD), Part("b", 0, pytest.approx(2 / 3))), ("c",))
    assert protocol.absences == {"c": [0]}


def test_a_server_waits_for_a_first_body_without_end_unless_all_are_gone() -> None:
    protocol = server(round_index=ROUNDS - 1)
    for name in ("a", "b", "c"):
        assert protocol.lost(name) == []
    assert protocol.waiting_for == ("a", "b", "c")
    protocol.left("a", ROUNDS - 2, True)
    protocol.left("b", ROUNDS - 2, True)
    assert only(Mix, protocol.left("c", ROUNDS - 2, True)).own_weight == 1.0
    assert protocol.mixed() == [Publish(ROUNDS - 1, ()), Finish(True)]


def test_a_server_that_holds_the_first_body_early_counts_the_deadline_from_the_rounds_begin() -> None:
    protocol = server()
    for name in ("a", "b", "c"):
        protocol.body_arrived(name, 0)
    protocol.body_arrived("a", 1)
    assert protocol.mixed() == [Publish(0, ("a", "b", "c")), DEADLINE]


def test_a_restarted_server_publishes_its_mean_again_and_goes_on() -> None:
    protocol = star("server", round_index=4, has_published=True)
    assert protocol.start() == [Publish(4, ()), SetTimer("start", 30)]
    assert protocol.round_index == 5
    assert protocol.connected("a", 4, 3, False) == [Resend("a")]


def test_a_server_whose_last_mean_is_published_has_finished() -> None:
    protocol = star("server", round_index=ROUNDS - 1, has_published=True)
    assert protocol.start() == [Publish(ROUNDS - 1, ()), Finish(True)]
    assert protocol.connected("a", ROUNDS - 1, ROUNDS - 2, False) == [Resend("a")]


def test_a_server_goes_where_most_of_its_sites_have_gone() -> None:
    protocol = server(round_index=2)
    assert protocol.body_arrived("a", 5) == []
    assert protocol.round_index == 2, "one site alone does not draw the others with it"
    assert protocol.body_arrived("b", 5) == [DEADLINE]
    assert (protocol.round_index, protocol.phase, protocol.catch_ups) == (5, "collecting", 1)
    assert protocol.waiting_for == ("c",)
    protocol = server(round_index=2)
    protocol.body_arrived("a", 5)
    protocol.body_arrived("b", 6)
    assert protocol.round_index == 6, "the body of round 5 may stand in for that of round 6"


def test_a_site_of_a_star_takes_the_mean_as_it_is_and_waits_longer_than_its_server() -> None:
    protocol = star("a")
    protocol.start()
    protocol.connected("server", 0, -1, False)
    assert protocol.trained() == [Publish(0, ("server",)), SetTimer("deadline", 20)]
    assert only(Mix, protocol.body_arrived("server", 0)) == Mix(0, 0.0, (Part("server", 0, 1.0),))
    protocol.mixed()
    protocol.trained()
    assert only(Mix, protocol.timer("deadline")) == Mix(1, 1.0, (), ("server",))


def test_stopping_a_server_that_waits_for_a_first_body_ends_it_at_once() -> None:
    assert server().stop() == [Finish(False)]


def test_a_server_that_is_stopped_while_it_averages_publishes_first() -> None:
    protocol = server()
    protocol.body_arrived("a", 0)
    protocol.stop()
    protocol.timer("deadline")
    assert protocol.mixed() == [Publish(0, ("a", "b", "c")), Finish(False)]


# Revisions


def revised(name: str) -> Plan:
    """From round 4 on d is a member too."""
    after = (4, mesh("a", "b", "c", "d", name=name))
    return RevisedPlan([(0, mesh(name=name)), after] if name != "d" else [after])


def test_a_new_neighbour_gets_our_body_when_its_revision_begins() -> None:
    protocol = started(revised("a"), round_index=3)
    assert protocol.connected("d", -1, -1, False) == []
    protocol.trained()
    protocol.body_arrived("b", 3)
    assert mixed_names(protocol.body_arrived("c", 3)) == [("b", 3), ("c", 3)]
    assert protocol.mixed() == [Resend("d"), Train(4)]
    assert only(Publish, protocol.trained()).receivers == ("b", "c", "d")


def test_who_joins_waits_for_the_others_to_come_to_its_first_round() -> None:
    protocol = node(revised("d"), "d", first_round=4)
    assert protocol.start() == [SetTimer("start", 30)]
    assert protocol.round_index == -1
    for name in ("a", "b", "c"):
        assert protocol.connected(name, 2, -1, False) == []
    assert protocol.timer("start") == [SetTimer("start", 30)]
    for name in ("a", "b", "c"):
        protocol.progress(name, 4)
    protocol.body_arrived("a", 3)
    protocol.body_arrived("b", 3)
    assert (protocol.phase, protocol.waiting_for) == ("starting", ("c",))
    actions = protocol.body_arrived("c", 3)
    assert mixed_names(actions) == [("a", 3), ("b", 3), ("c", 3)]
    assert only(Mix, actions).catches_up
    assert protocol.mixed() == [Train(4)]
    assert protocol.catch_ups == 0
    for name in ("a", "b", "c"):
        protocol.body_arrived(name, 8)
    protocol.trained()
    protocol.mixed()
    assert (protocol.round_index, protocol.catch_ups) == (9, 1)


def test_who_joins_does_not_wait_for_ever_for_a_neighbour_that_is_gone() -> None:
    protocol = node(revised("d"), "d", first_round=4)
    protocol.start()
    protocol.connected("a", 4, -1, False)
    protocol.connected("b", 4, -1, False)
    protocol.body_arrived("a", 3)
    protocol.body_arrived("b", 3)
    assert mixed_names(protocol.timer("start")) == [("a", 3), ("b", 3)]


def test_who_has_joined_restarts_like_any_other() -> None:
    protocol = node(revised("d"), "d", first_round=4, round_index=6)
    protocol.start()
    assert protocol.round_index == 6
    assert protocol.timer("start") == [Train(6)]


def test_the_early_body_of_a_neighbour_to_be_is_kept() -> None:
    protocol = started(revised("a"), round_index=2)
    assert protocol.body_arrived("d", 4) == []
    pass_round(protocol)
    assert (protocol.have("d"), protocol.discarded) == (4, {})


def test_a_new_neighbour_that_is_not_there_is_waited_for_once() -> None:
    protocol = started(revised("a"), round_index=3)
    pass_round(protocol)
    protocol.trained()
    assert protocol.waiting_for == ("b", "c", "d")
    protocol.timer("deadline")
    protocol.mixed()
    protocol.trained()
    assert protocol.waiting_for == ("b", "c")


def test_who_is_no_longer_a_neighbour_is_ignored_and_its_bodies_go() -> None:
    protocol = started(mesh("a", "b", "c", "d"), round_index=3)
    protocol.body_arrived("d", 4)
    protocol.body_arrived("d", 3)
    protocol.body_arrived("b", 3)
    protocol.plan = RevisedPlan([(0, mesh("a", "b", "c", "d")), (4, mesh())])
    protocol.trained()
    protocol.body_arrived("c", 3)
    discarded = [Discard("d", 4, "unexpected")]
    assert protocol.mixed() == [*discarded, Train(4)]
    assert protocol.body_arrived("d", 4) == discarded
    assert only(Publish, protocol.trained()).receivers == ("b", "c")
    assert protocol.waiting_for == ("b", "c")


def test_a_plan_may_be_replaced_while_its_neighbours_are_waited_for() -> None:
    protocol = collecting(mesh("a", "b", "c", "d"), round_index=3)
    protocol.body_arrived("b", 3)
    protocol.body_arrived("c", 3)
    assert protocol.waiting_for == ("d",)
    protocol.plan = mesh()
    assert protocol.waiting_for == ()
    assert mixed_names(protocol.progress("b", 3)) == [("b", 3), ("c", 3)]


# Events that make no sense


def test_timers_that_are_not_set_change_nothing() -> None:
    protocol = started()
    assert protocol.timer("start") == protocol.timer("deadline") == []
    assert protocol.phase == "training"


def test_events_of_the_network_before_the_start_are_kept() -> None:
    protocol = node()
    assert protocol.connected("b", 0, -1, False) == protocol.connected("c", 0, -1, False) == []
    assert protocol.body_arrived("b", 0) == []
    assert protocol.start() == [SetTimer("start", 30), CancelTimer("start"), Train(0)]


def test_rounds_start_once() -> None:
    protocol = node()
    protocol.start()
    with pytest.raises(NodeError, match="starting"):
        protocol.start()


def test_a_mixing_ends_once() -> None:
    protocol = started(round_index=1)
    pass_round(protocol)
    with pytest.raises(NodeError, match="round 2"):
        protocol.mixed()


@pytest.mark.parametrize("wrong", ["start", "trained", "mixed"])
def test_a_driver_that_is_mistaken_is_told(wrong: str) -> None:
    protocol = collecting()
    with pytest.raises(NodeError, match="collecting"):
        getattr(protocol, wrong)()


def test_a_round_told_at_random_costs_no_time() -> None:
    protocol = started(mesh("a", "b", "c", topology="exponential"))
    protocol.connected("b", 2**31, -1, False)
    protocol.progress("c", 2**31)
    assert protocol.known_round("c") == ROUNDS
    assert protocol.trained() == [DEADLINE]
