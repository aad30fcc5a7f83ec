"""The round protocol, rule by rule: events in, actions out."""

from collections.abc import Callable
from typing import Any

import pytest

from flop_p2p.config import TopologySettings
from flop_p2p.config.federation import GossipSettings
from flop_p2p.config.topology import Edge, TopologyFile
from flop_p2p.errors import NodeError
from flop_p2p.gossip.actions import (
    Action,
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
from flop_p2p.gossip.plan import GossipPlan, Plan, RevisedPlan, StarPlan
from flop_p2p.gossip.protocol import RoundProtocol
from flop_p2p.topology import build_schedule

ROUNDS = 20
SETTINGS = GossipSettings(deadline=10, start_timeout=30, staleness=1, min_neighbours=1)
DEADLINE = SetTimer("deadline", 10)
THIRD = pytest.approx(1 / 3)


def mesh(*names: str, name: str = "a", topology: str = "full") -> Plan:
    return GossipPlan(build_schedule(TopologySettings(name=topology), names or ("a", "b", "c")), name)


def node(plan: Plan | None = None, name: str = "a", settings: dict[str, Any] | None = None, **at: Any) -> RoundProtocol:
    return RoundProtocol(name, plan or mesh(), SETTINGS.model_copy(update=settings or {}), ROUNDS, **at)


def started(plan: Plan | None = None, settings: dict[str, Any] | None = None, **at: Any) -> RoundProtocol:
    """A node in training, all its neighbours connected and in the same round."""
    protocol = node(plan, settings=settings, **at)
    protocol.start()
    for name in protocol.plan.neighbours(0):
        protocol.connected(name, max(protocol.round_index, 0), -1, False)
    return protocol


def collecting(plan: Plan | None = None, settings: dict[str, Any] | None = None, **at: Any) -> RoundProtocol:
    protocol = started(plan, settings, **at)
    if protocol.plan.trains:
        protocol.trained()
    assert protocol.phase == "collecting"
    return protocol


def pass_round(protocol: RoundProtocol, *without: str) -> None:
    """From training to the training of the next round; by the deadline for those that are left out."""
    round_index = protocol.round_index
    protocol.trained()
    for name in protocol.plan.neighbours(0):
        if name not in without:
            protocol.body_arrived(name, round_index)
    if protocol.phase == "collecting":
        for _ in range(2 if round_index == 0 and protocol.waiting_for else 1):
            protocol.timer("deadline")
    protocol.mixed()
    assert (protocol.phase, protocol.round_index) == ("training", round_index + 1)


def only(kind: type[Any], actions: list[Action]) -> Any:
    """The one action of this kind."""
    found = [action for action in actions if isinstance(action, kind)]
    assert len(found) == 1, actions
    return found[0]


def mixed_names(actions: list[Action]) -> list[tuple[str, int]]:
    return [(part.name, part.round) for part in only(Mix, actions).parts]


# Starting


def test_a_fresh_node_waits_for_all_neighbours() -> None:
    protocol = node()
    assert protocol.start() == [SetTimer("start", 30)]
    assert protocol.waiting_for == ("b", "c")
    assert protocol.connected("b", 0, -1, False) == []
    assert (protocol.phase, protocol.waiting_for) == ("starting", ("c",))
    assert protocol.connected("c", 0, -1, False) == [CancelTimer("start"), Train(0)]
    assert protocol.phase == "training"


def test_a_neighbour_lost_before_the_start_is_waited_for_again() -> None:
    protocol = node()
    protocol.start()
    protocol.connected("b", 0, -1, False)
    protocol.lost("b")
    assert protocol.connected("c", 0, -1, False) == []
    assert protocol.waiting_for == ("b",)


def test_after_the_start_timeout_enough_neighbours_suffice() -> None:
    protocol = node()
    protocol.start()
    assert protocol.start_waits == 0
    assert protocol.timer("start") == [SetTimer("start", 30)]
    assert protocol.start_waits == 1
    protocol.connected("b", 0, -1, False)
    assert protocol.timer("start") == [Train(0)]
    assert protocol.start_waits == 1


def test_none_may_be_enough() -> None:
    protocol = node(settings={"min_neighbours": 0})
    protocol.start()
    assert protocol.timer("start") == [Train(0)]


def test_who_did_not_come_to_the_start_is_not_waited_for_until_it_greets() -> None:
    protocol = node()
    protocol.start()
    protocol.connected("b", 0, -1, False)
    protocol.timer("start")
    protocol.trained()
    assert protocol.waiting_for == ("b",)
    protocol.connected("c", 0, -1, False)
    assert protocol.waiting_for == ("b", "c")


def test_a_restarted_node_begins_once_every_neighbour_was_heard_of() -> None:
    protocol = node(round_index=3)
    assert protocol.start() == [SetTimer("start", 30)]
    protocol.connected("b", 3, -1, False)
    protocol.lost("b")
    assert protocol.connected("c", 3, -1, False) == [CancelTimer("start"), Train(3)]


def test_a_restarted_node_begins_with_nobody_when_the_time_has_passed() -> None:
    protocol = node(round_index=3)
    protocol.start()
    assert protocol.timer("start") == [Train(3)]


def test_a_published_body_is_not_trained_again() -> None:
    protocol = node(round_index=3, has_published=True)
    assert protocol.start() == [Publish(3, ()), SetTimer("start", 30)]
    assert protocol.connected("b", 3, 2, False) == [Resend("b")]
    assert protocol.connected("c", 3, 3, False) == [CancelTimer("start"), DEADLINE]
    assert protocol.phase == "collecting"
    protocol.body_arrived("b", 3)
    assert mixed_names(protocol.body_arrived("c", 3)) == [("b", 3), ("c", 3)]


def test_without_neighbours_a_node_begins_at_once_and_mixes_alone() -> None:
    class Alone(StarPlan):
        def __init__(self) -> None:
            super().__init__("server", {"a": 1.0}, "a")
            self._weights, self._others = {"a": 1.0}, ()

    protocol = node(Alone(), settings={"isolated": "wait"})
    assert protocol.start()[-1] == Train(0)
    assert only(Mix, protocol.trained()) == Mix(0, 1.0, ())
    assert protocol.mixed() == [Train(1)]


def test_after_all_rounds_there_is_nothing_to_start() -> None:
    protocol = node(round_index=ROUNDS)
    assert protocol.start() == [Finish(True)]
    assert protocol.phase == "done"


# Rounds


def test_a_round_that_nothing_disturbs() -> None:
    protocol = started()
    assert protocol.trained() == [Publish(0, ("b", "c")), DEADLINE]
    assert protocol.published == 0
    assert protocol.waiting_for == ("b", "c")
    assert protocol.body_arrived("c", 0) == []
    assert protocol.waiting_for == ("b",)
    mix = Mix(0, THIRD, (Part("b", 0, THIRD), Part("c", 0, THIRD)))
    assert protocol.body_arrived("b", 0) == [CancelTimer("deadline"), mix]
    assert (protocol.phase, protocol.waiting_for) == ("mixing", ())
    assert protocol.mixed() == [Train(1)]
    assert (protocol.round_index, protocol.have("b"), protocol.absences) == (1, 0, {})


def test_bodies_that_came_during_the_training_are_mixed_at_once() -> None:
    protocol = started()
    protocol.body_arrived("b", 0)
    protocol.body_arrived("c", 0)
    assert [type(action) for action in protocol.trained()] == [Publish, SetTimer, CancelTimer, Mix]


def test_only_connected_receivers_get_the_body() -> None:
    protocol = started()
    protocol.lost("c")
    assert only(Publish, protocol.trained()) == Publish(0, ("b",))
    assert protocol.connected("c", 0, -1, False) == [Resend("c")]


def test_the_weight_of_the_absent_goes_to_the_node_itself() -> None:
    protocol = started(round_index=4)
    protocol.trained()
    protocol.body_arrived("c", 4)
    mix = only(Mix, protocol.timer("deadline"))
    assert mix == Mix(4, pytest.approx(2 / 3), (Part("c", 4, THIRD),), ("b",))
    assert protocol.absences == {"b": [4]}


def test_who_misses_a_deadline_is_waited_for_again_if_it_is_connected() -> None:
    protocol = started(round_index=1)
    pass_round(protocol, "b")
    protocol.trained()
    protocol.body_arrived("c", 2)
    assert protocol.waiting_for == ("b",)


def test_who_is_lost_is_waited_for_in_that_round_only_until_it_greets() -> None:
    protocol = started(round_index=1)
    protocol.lost("b")
    protocol.trained()
    protocol.body_arrived("c", 1)
    assert protocol.waiting_for == ("b",)
    protocol.timer("deadline")
    protocol.mixed()
    protocol.trained()
    assert protocol.waiting_for == ("c",)
    protocol.connected("b", 2, -1, False)
    assert protocol.waiting_for == ("b", "c")
    protocol.lost("b")
    assert protocol.waiting_for == ("b", "c"), "lost in this round"


def test_in_the_first_round_a_connected_neighbour_may_still_be_starting() -> None:
    protocol = collecting()
    protocol.body_arrived("c", 0)
    assert protocol.timer("deadline") == [SetTimer("deadline", 30)]
    assert only(Mix, protocol.timer("deadline")).absent == ("b",)


def test_in_the_first_round_a_lost_neighbour_gets_no_extra_time() -> None:
    protocol = collecting()
    protocol.body_arrived("c", 0)
    protocol.lost("b")
    assert only(Mix, protocol.timer("deadline")).absent == ("b",)
    protocol = collecting()
    protocol.body_arrived("c", 0)
    protocol.timer("deadline")
    assert protocol.lost("b")[0] == CancelTimer("deadline")
    assert protocol.phase == "mixing"


def test_who_said_goodbye_is_not_waited_for_until_it_greets() -> None:
    protocol = started(round_index=1)
    protocol.trained()
    protocol.body_arrived("c", 1)
    assert only(Mix, protocol.left("b", 0, False)).absent == ("b",)
    protocol.mixed()
    protocol.trained()
    assert protocol.waiting_for == ("c",)
    protocol.connected("b", 2, -1, False)
    assert protocol.waiting_for == ("b", "c")


def test_a_goodbye_may_overtake_the_body_that_it_announces() -> None:
    protocol = collecting(round_index=1)
    protocol.body_arrived("c", 1)
    assert protocol.left("b", 1, True) == []
    assert mixed_names(protocol.body_arrived("b", 1)) == [("b", 1), ("c", 1)]


def test_a_body_of_a_later_round_says_that_this_one_will_not_come() -> None:
    protocol = collecting(round_index=1)
    protocol.body_arrived("c", 1)
    assert only(Mix, protocol.body_arrived("b", 2)).absent == ("b",)
    protocol.mixed()
    protocol.trained()
    assert mixed_names(protocol.body_arrived("c", 2)) == [("b", 2), ("c", 2)]


@pytest.mark.parametrize(("round_index", "waits"), [(1, True), (2, True), (3, False)])
def test_who_comes_back_two_rounds_further_has_no_body_of_this_round(round_index: int, waits: bool) -> None:
    """One round further its latest body may still be that of this round."""
    protocol = collecting(round_index=1)
    protocol.lost("b")
    protocol.connected("b", round_index, -1, False)
    assert (protocol.waiting_for == ("b", "c")) is waits


def test_who_sent_a_later_body_does_not_send_this_one_after_greeting_again() -> None:
    protocol = collecting(round_index=1)
    protocol.body_arrived("b", 2)
    protocol.connected("b", 2, -1, False)
    assert protocol.waiting_for == ("c",)


def test_a_heartbeat_of_a_later_round_does_not() -> None:
    protocol = collecting(round_index=1)
    protocol.body_arrived("c", 1)
    assert protocol.progress("b", 2) == []
    assert protocol.waiting_for == ("b",)
    assert protocol.known_round("b") == 2


def test_time_varying_rounds_wait_for_their_own_neighbours_only() -> None:
    names = ("a", "b", "c", "d")
    protocol = started(mesh(*names, topology="one-peer-exponential"))
    assert only(Publish, protocol.trained()) == Publish(0, ("d",))
    assert protocol.waiting_for == ("b",)
    protocol.body_arrived("b", 0)
    protocol.mixed()
    assert only(Publish, protocol.trained()) == Publish(1, ("c",))
    assert protocol.waiting_for == ("c",)


def one_way_ring() -> Plan:
    """a sends to b, and receives from c."""
    edges = (Edge("a", "b"), Edge("b", "c"), Edge("c", "a"))
    file = TopologyFile(sites=("a", "b", "c"), edges=edges, directed=True)
    return GossipPlan(build_schedule(TopologySettings(name="one-way.toml"), file.sites, file=file), "a")


def ahead_of_its_receiver(**at: Any) -> RoundProtocol:
    """A node whose sender's body is here, and whose receiver is one round behind."""
    protocol = collecting(one_way_ring(), round_index=3, **at)
    protocol.connected("b", 2, -1, False)
    assert protocol.body_arrived("c", 3) == []
    assert protocol.waiting_for == ("b",)
    return protocol


def test_a_receiver_in_the_same_round_is_not_waited_for() -> None:
    protocol = collecting(one_way_ring(), round_index=3)
    assert protocol.waiting_for == ("c",)
    assert mixed_names(protocol.body_arrived("c", 3)) == [("c", 3)]


@pytest.mark.parametrize(
    "event",
    [
        lambda protocol: protocol.progress("b", 3),
        lambda protocol: protocol.connected("b", 3, -1, False),
        lambda protocol: protocol.body_arrived("b", 3),
        lambda protocol: protocol.connected("b", 2, -1, True),
        lambda protocol: protocol.left("b", 2, False),
        lambda protocol: protocol.lost("b"),
        lambda protocol: protocol.timer("deadline"),
    ],
    ids=["heartbeat", "greeting", "body", "finished", "goodbye", "lost", "deadline"],
)
def test_a_receiver_is_waited_for_until_it_comes_to_the_round(event: Callable[[RoundProtocol], list[Action]]) -> None:
    protocol = ahead_of_its_receiver()
    assert protocol.progress("b", 2) == []
    assert mixed_names(event(protocol)) == [("c", 3)]
    assert protocol.absences == {}


def test_one_deadline_is_for_bodies_and_receivers_alike() -> None:
    protocol = collecting(one_way_ring(), round_index=3)
    protocol.connected("b", 2, -1, False)
    assert protocol.waiting_for == ("b", "c")
    assert only(Mix, protocol.timer("deadline")).absent == ("c",)


def test_a_receiver_that_missed_a_deadline_is_waited_for_again() -> None:
    protocol = ahead_of_its_receiver()
    protocol.timer("deadline")
    protocol.mixed()
    protocol.trained()
    assert protocol.body_arrived("c", 4) == []
    assert protocol.progress("b", 3) == []
    assert mixed_names(protocol.progress("b", 4)) == [("c", 4)]


def test_a_receiver_that_restarts_after_coming_to_the_round_is_not_waited_for() -> None:
    """It is a sender too: its body is here."""
    protocol = collecting(round_index=3)
    protocol.body_arrived("b", 3)
    protocol.connected("b", 2, -1, False)
    assert protocol.waiting_for == ("c",)


def test_the_last_round_ends_it() -> None:
    protocol = collecting(round_index=ROUNDS - 1)
    protocol.body_arrived("b", ROUNDS - 1)
    protocol.body_arrived("c", ROUNDS - 1)
    assert protocol.mixed() == [Finish(True)]
    assert (protocol.phase, protocol.round_index) == ("done", ROUNDS)
    assert protocol.connected("b", ROUNDS - 1, ROUNDS - 2, False) == [Resend("b")]
    assert protocol.connected("b", ROUNDS - 1, ROUNDS - 1, False) == []
    assert protocol.body_arrived("b", ROUNDS - 1) == [Discard("b", ROUNDS - 1, "late")]
    assert protocol.lost("b") == protocol.timer("deadline") == protocol.stop() == protocol.trained() == []


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
