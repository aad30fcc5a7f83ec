"""Nodes that were left behind, and nodes that are alone."""

import pytest
from round_cases import DEADLINE, ROUNDS, collecting, mesh, mixed_names, node, only, pass_round, started

from flop_p2p.gossip.actions import (
    CancelTimer,
    Finish,
    Mix,
    Part,
    Publish,
    Resend,
    Train,
)

# Catching up


def test_who_restarts_far_behind_takes_the_mean_of_the_others() -> None:
    protocol = node(round_index=2)
    protocol.start()
    protocol.connected("b", 6, -1, False)
    assert protocol.body_arrived("b", 5) == []
    assert protocol.connected("c", 6, -1, False) == [CancelTimer("start"), DEADLINE]
    assert (protocol.phase, protocol.waiting_for) == ("catching-up", ("c",))
    mix = Mix(2, 0.0, (Part("b", 5, 0.5), Part("c", 6, 0.5)), catches_up=True)
    assert protocol.body_arrived("c", 6) == [CancelTimer("deadline"), mix]
    assert protocol.mixed() == [Train(7)]
    assert (protocol.round_index, protocol.catch_ups) == (7, 1)


def test_who_is_no_further_behind_than_the_staleness_bound_goes_on() -> None:
    protocol = node(round_index=2)
    protocol.start()
    protocol.connected("b", 3, -1, False)
    assert protocol.connected("c", 3, -1, False)[-1] == Train(2)


def test_who_was_left_behind_while_training_does_not_publish_but_catches_up() -> None:
    protocol = started(round_index=2)
    protocol.progress("b", 4)
    protocol.progress("c", 4)
    protocol.body_arrived("b", 3)
    protocol.body_arrived("c", 3)
    actions = protocol.trained()
    assert not any(isinstance(action, Publish) for action in actions)
    assert mixed_names(actions) == [("b", 3), ("c", 3)]
    assert protocol.mixed() == [Train(4)]


def test_catching_up_takes_what_came_until_the_deadline() -> None:
    protocol = started(round_index=2)
    protocol.progress("b", 5)
    protocol.progress("c", 5)
    assert protocol.trained() == [DEADLINE]
    protocol.body_arrived("b", 5)
    assert mixed_names(protocol.timer("deadline")) == [("b", 5)]


def test_catching_up_in_vain_the_node_goes_on_with_its_own_round() -> None:
    protocol = started(round_index=2)
    protocol.progress("b", 5)
    protocol.progress("c", 5)
    protocol.trained()
    assert protocol.timer("deadline") == [Publish(2, ("b", "c")), DEADLINE]
    assert only(Mix, protocol.timer("deadline")).absent == ("b", "c")
    protocol.mixed()
    protocol = node(round_index=2)
    protocol.start()
    protocol.connected("b", 6, -1, False)
    protocol.connected("c", 6, -1, False)
    assert protocol.timer("deadline") == [Train(2)]
    assert protocol.trained()[0] == Publish(2, ("b", "c")), "tried once a round"
    assert protocol.catch_ups == 0


def test_who_is_lost_while_being_waited_for_ends_the_catching_up() -> None:
    protocol = started(round_index=2)
    protocol.progress("b", 5)
    protocol.progress("c", 5)
    protocol.trained()
    protocol.lost("b")
    assert protocol.waiting_for == ("c",)
    assert protocol.lost("c") == [CancelTimer("deadline"), Publish(2, ()), DEADLINE]


EIGHT = ("a", "b", "c", "d", "e", "f", "g", "h")  # one-peer: a receives from b, c, e in turn, and sends to h, g, e


def test_whoever_greets_from_far_ahead_is_going_to_send_its_body() -> None:
    protocol = node(mesh(*EIGHT, topology="one-peer-exponential"), round_index=2)
    protocol.start()
    for name in ("b", "c", "e", "g", "h"):
        protocol.connected(name, 10, -1, False)
    assert (protocol.phase, protocol.waiting_for) == ("catching-up", ("b", "c", "e", "g", "h"))
    protocol.body_arrived("g", 9)
    protocol.lost("h")
    assert protocol.waiting_for == ("b", "c", "e")


def test_whoever_tells_of_being_far_ahead_sends_its_body_in_its_turn() -> None:
    """Those in round 10 or that were in round 9: it is b's turn in round 9, and c's in round 10."""
    protocol = started(mesh(*EIGHT, topology="one-peer-exponential"), round_index=2)
    for name in ("b", "c", "e", "g", "h"):
        protocol.progress(name, 10)
    protocol.trained()
    assert (protocol.phase, protocol.waiting_for) == ("catching-up", ("b", "c"))


def test_whoever_greets_one_round_ahead_may_have_no_later_body_to_send() -> None:
    protocol = node(mesh(*EIGHT, topology="one-peer-exponential"), settings={"staleness": 0}, round_index=2)
    protocol.start()
    for name in ("b", "c", "e", "g", "h"):
        protocol.connected(name, 3, -1, False)
    assert (protocol.phase, protocol.waiting_for) == ("catching-up", ("b",)), "only b sends in round 3"


def test_collecting_may_end_in_catching_up() -> None:
    protocol = collecting(round_index=2)
    protocol.progress("c", 5)
    protocol.body_arrived("c", 4)
    actions = protocol.body_arrived("b", 4)
    assert only(Mix, actions) == Mix(2, 0.0, (Part("b", 4, 0.5), Part("c", 4, 0.5)), catches_up=True)


def test_catching_up_with_those_that_have_finished_ends_it() -> None:
    protocol = node(round_index=2)
    protocol.start()
    protocol.connected("b", ROUNDS, -1, True)
    protocol.connected("c", ROUNDS, -1, True)
    protocol.body_arrived("b", ROUNDS - 1)
    assert only(Mix, protocol.body_arrived("c", ROUNDS - 1)).catches_up
    assert protocol.mixed() == [Finish(True)]
    assert protocol.round_index == ROUNDS


def test_one_that_trained_on_alone_does_not_draw_the_others_with_it() -> None:
    protocol = started(round_index=2)
    protocol.progress("c", 3)
    protocol.connected("b", ROUNDS, -1, True)
    assert protocol.body_arrived("b", ROUNDS - 1) == []
    assert only(Publish, protocol.trained()).round == 2
    assert only(Mix, protocol.body_arrived("c", 2)).absent == ("b",)
    assert protocol.catch_ups == 0


def test_nor_does_it_take_part_when_the_others_are_caught_up_with() -> None:
    protocol = node(mesh("a", "b", "c", "d"), round_index=2)
    protocol.start()
    for name, their_round in (("b", 6), ("c", 7), ("d", ROUNDS)):
        protocol.connected(name, their_round, -1, False)
    protocol.body_arrived("d", ROUNDS - 1)
    protocol.body_arrived("b", 6)
    assert protocol.waiting_for == ("c",)
    assert mixed_names(protocol.body_arrived("c", 6)) == [("b", 6), ("c", 6)]
    assert protocol.mixed() == [Train(7)]


def test_of_two_that_are_far_ahead_the_nearer_is_followed() -> None:
    protocol = node(round_index=2)
    protocol.start()
    protocol.body_arrived("b", 6)
    protocol.body_arrived("c", ROUNDS - 1)
    protocol.connected("b", 6, -1, False)
    assert mixed_names(protocol.connected("c", ROUNDS, -1, False)) == [("b", 6)]


def test_those_a_little_further_than_the_others_are_followed_too() -> None:
    protocol = node(round_index=2)
    protocol.start()
    protocol.body_arrived("b", 5)
    protocol.body_arrived("c", 6)
    protocol.connected("b", 5, -1, False)
    assert mixed_names(protocol.connected("c", 6, -1, False)) == [("b", 5), ("c", 6)]


def test_a_promise_is_kept_once() -> None:
    protocol = node(mesh(*EIGHT, topology="one-peer-exponential"), round_index=2)
    protocol.start()
    for name in ("b", "c", "e", "g", "h"):
        protocol.connected(name, 10, -1, False)
    for name in ("b", "c", "e", "g", "h"):
        protocol.body_arrived(name, 9)
    assert protocol.mixed() == [Train(10)]
    for name in ("b", "c", "e", "g", "h"):
        protocol.progress(name, 16)
    protocol.trained()
    assert (protocol.phase, protocol.waiting_for) == ("catching-up", ("b", "c"))


@pytest.mark.parametrize(("round_of_b", "behind"), [(5, False), (6, True)])
def test_neighbours_that_need_no_body_of_ours_may_be_ahead(round_of_b: int, behind: bool) -> None:
    """Of five sites taking turns, b mixes our body in round 5, and c never: both may go on to there without us."""
    protocol = started(mesh("a", "b", "c", "d", "e", topology="one-peer-exponential"), round_index=3)
    protocol.lost("d")
    protocol.lost("e")
    protocol.progress("b", round_of_b)
    protocol.progress("c", 5)
    assert (protocol.trained()[0] == DEADLINE) is behind
    assert (protocol.phase == "catching-up") is behind


# Alone


def test_an_isolated_node_trains_on() -> None:
    protocol = started(round_index=1)
    protocol.lost("b")
    protocol.lost("c")
    pass_round(protocol, "b", "c")
    assert protocol.absences == {"b": [1], "c": [1]}
    assert only(Mix, protocol.trained()) == Mix(2, pytest.approx(1), (), ("b", "c"))


def test_an_isolated_node_waits_if_it_is_to() -> None:
    protocol = started(settings={"isolated": "wait"}, round_index=1)
    protocol.lost("b")
    protocol.lost("c")
    protocol.trained()
    assert protocol.timer("deadline") == []
    assert (protocol.phase, protocol.waiting_for) == ("collecting", ("b", "c"))
    assert protocol.connected("b", 1, -1, False) == [Resend("b"), DEADLINE]
    protocol.body_arrived("b", 1)
    assert only(Mix, protocol.timer("deadline")).absent == ("c",)


def test_an_isolated_node_does_not_wait_for_those_that_have_finished() -> None:
    protocol = started(settings={"isolated": "wait"}, round_index=1)
    protocol.trained()
    protocol.left("b", 0, True)
    assert only(Mix, protocol.left("c", 0, True)).own_weight == pytest.approx(1)


def test_an_isolated_node_waits_for_those_that_only_stopped() -> None:
    protocol = started(settings={"isolated": "wait"}, round_index=1)
    protocol.trained()
    protocol.left("b", 0, True)
    assert protocol.left("c", 0, False) == [CancelTimer("deadline")]
    assert (protocol.phase, protocol.waiting_for) == ("collecting", ("c",))
    assert only(Mix, protocol.left("c", 0, True)).absent == ("b", "c")


def test_an_isolated_node_waits_for_those_that_it_never_heard_of() -> None:
    protocol = node(settings={"isolated": "wait"}, round_index=3)
    protocol.start()
    protocol.timer("start")
    assert protocol.trained() == [Publish(3, ()), DEADLINE, CancelTimer("deadline")]
    assert (protocol.phase, protocol.waiting_for) == ("collecting", ("b", "c"))


def test_an_isolated_node_may_be_given_another_neighbour() -> None:
    protocol = started(mesh("a", "b"), settings={"isolated": "wait"}, round_index=1)
    protocol.connected("c", 1, -1, False)
    protocol.lost("b")
    protocol.trained()
    protocol.timer("deadline")
    assert protocol.waiting_for == ("b",)
    protocol.plan = mesh()
    assert protocol.progress("c", 1) == [DEADLINE]
    assert mixed_names(protocol.body_arrived("c", 1) + protocol.timer("deadline")) == [("c", 1)]
