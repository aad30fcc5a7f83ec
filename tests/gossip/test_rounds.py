"""Starting, and rounds in which nothing goes wrong or a neighbour is absent."""

from collections.abc import Callable
from typing import Any

import pytest
from round_cases import (
    DEADLINE,
    ROUNDS,
    THIRD,
    collecting,
    mesh,
    mixed_names,
    node,
    only,
    pass_round,
    started,
)

from flop_p2p.config import TopologySettings
from flop_p2p.config.topology import Edge, TopologyFile
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
from flop_p2p.gossip.plan import GossipPlan, Plan, StarPlan
from flop_p2p.gossip.protocol import RoundProtocol
from flop_p2p.topology import build_schedule

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
