"""Bodies that are late, early, twice or nobody's, and bodies that are sent again."""

import pytest
from round_cases import ROUNDS, collecting, mesh, mixed_names, only, pass_round, started

from flop_p2p.gossip.actions import (
    Discard,
    Mix,
    Publish,
    Resend,
    Train,
)

# Bodies that are late, early, twice, or nobody's


def test_a_late_body_stands_in_for_one_that_is_missing() -> None:
    protocol = started(round_index=1)
    pass_round(protocol, "b")
    assert protocol.body_arrived("b", 1) == []
    assert protocol.have("b") == 1
    protocol.trained()
    protocol.body_arrived("c", 2)
    assert protocol.waiting_for == ("b",)
    actions = protocol.timer("deadline")
    assert mixed_names(actions) == [("b", 1), ("c", 2)]
    assert only(Mix, actions).absent == ()
    assert (protocol.stale_uses, protocol.absences) == (1, {"b": [1]})
    protocol.mixed()
    assert protocol.body_arrived("b", 1) == [Discard("b", 1, "duplicate")]


def test_a_late_body_is_not_used_beside_the_one_of_this_round() -> None:
    protocol = started(round_index=1)
    pass_round(protocol, "b")
    protocol.body_arrived("b", 1)
    assert protocol.body_arrived("b", 2) == [Discard("b", 1, "superseded")]
    protocol.trained()
    assert mixed_names(protocol.body_arrived("c", 2)) == [("b", 2), ("c", 2)]


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_a_body_may_be_as_late_as_the_staleness_bound(staleness: int) -> None:
    protocol = started(settings={"staleness": staleness}, round_index=5)
    assert protocol.body_arrived("b", 5 - staleness) == []
    assert protocol.body_arrived("c", 4 - staleness) == [Discard("c", 4 - staleness, "late")]


def test_a_late_body_goes_when_it_has_become_too_late() -> None:
    protocol = started(round_index=1)
    pass_round(protocol, "b")
    protocol.body_arrived("b", 1)
    protocol.trained()
    protocol.body_arrived("c", 2)
    protocol.body_arrived("b", 3)  # so that nothing of round 2 is waited for, and the late one is used
    protocol.mixed()
    assert protocol.have("b") == 3
    protocol = started(mesh("a", "b", "c", "d", topology="one-peer-exponential"), round_index=1)
    assert protocol.body_arrived("b", 0) == []
    protocol.trained()
    protocol.body_arrived("c", 1)
    assert protocol.mixed() == [Discard("b", 0, "late"), Train(2)]
    assert protocol.discarded == {"late": 1}


def test_an_early_body_is_kept_for_its_round() -> None:
    protocol = started(round_index=1)
    protocol.body_arrived("b", 1)
    protocol.body_arrived("b", 2)
    protocol.trained()
    assert mixed_names(protocol.body_arrived("c", 1)) == [("b", 1), ("c", 1)]
    protocol.mixed()
    protocol.trained()
    assert mixed_names(protocol.body_arrived("c", 2)) == [("b", 2), ("c", 2)]


def test_of_early_bodies_the_newest_is_kept() -> None:
    protocol = started(round_index=1)
    protocol.body_arrived("b", 1)
    protocol.body_arrived("b", 3)
    assert protocol.body_arrived("b", 2) == [Discard("b", 2, "superseded")]
    assert protocol.body_arrived("b", 4) == [Discard("b", 3, "superseded")]
    assert protocol.have("b") == 4


def test_while_bodies_are_mixed_one_more_of_each_neighbour_is_kept() -> None:
    protocol = started(round_index=1)
    pass_round(protocol, "b")
    protocol.body_arrived("b", 1)
    protocol.trained()
    protocol.body_arrived("c", 2)
    protocol.timer("deadline")
    assert protocol.body_arrived("b", 2) == []
    assert protocol.body_arrived("b", 3) == [Discard("b", 2, "superseded")]
    assert protocol.body_arrived("c", 2) == [Discard("c", 2, "duplicate")]


def test_a_body_that_is_held_or_was_mixed_is_not_taken_twice() -> None:
    protocol = started(round_index=1)
    protocol.body_arrived("b", 1)
    assert protocol.body_arrived("b", 1) == [Discard("b", 1, "duplicate")]
    pass_round(protocol)
    assert protocol.body_arrived("b", 1) == [Discard("b", 1, "duplicate")]
    assert protocol.discarded == {"duplicate": 3}


def test_a_body_older_than_one_that_was_mixed_is_too_late() -> None:
    protocol = started(settings={"staleness": 3}, round_index=4)
    pass_round(protocol)
    assert protocol.body_arrived("b", 3) == [Discard("b", 3, "late")]


@pytest.mark.parametrize(("name", "round_index"), [("x", 0), ("b", -1), ("b", ROUNDS), ("b", 2**31), ("a", 0)])
def test_bodies_of_strangers_and_of_rounds_that_do_not_exist(name: str, round_index: int) -> None:
    assert started().body_arrived(name, round_index) == [Discard(name, round_index, "unexpected")]


# Sending again


@pytest.mark.parametrize(
    ("round_index", "have", "resends"),
    [(3, 2, True), (3, 3, False), (4, 2, False), (2, 2, True), (2, 3, False), (1, -1, True), (-1, -1, True)],
)
def test_the_latest_body_is_sent_again_to_who_needs_it(round_index: int, have: int, resends: bool) -> None:
    protocol = collecting(round_index=3)
    assert (Resend("c") in protocol.connected("c", round_index, have, False)) is resends


def test_who_does_not_mix_the_latest_body_gets_it_to_catch_up_only() -> None:
    plan = mesh("a", "b", "c", "d", topology="one-peer-exponential")
    protocol = collecting(plan, round_index=3)
    assert protocol.connected("b", 3, -1, False) == []
    assert protocol.connected("b", 2, -1, False) == []
    assert protocol.connected("b", 1, -1, False) == [Resend("b")]
    assert collecting(plan, round_index=1).connected("b", 0, -1, False) == []


def test_strangers_get_nothing() -> None:
    assert collecting().connected("x", 0, -1, False) == []


def test_before_anything_was_published_there_is_nothing_to_send_again() -> None:
    assert started(round_index=5).connected("b", 0, -1, False) == []


def test_a_finished_neighbour_gets_no_bodies() -> None:
    protocol = started(round_index=ROUNDS - 1)
    protocol.connected("b", ROUNDS, -1, True)
    assert only(Publish, protocol.trained()).receivers == ("c",)
