"""One node of a small federation at a chosen point of its rounds, for the tests of the round protocol."""

from typing import Any

import pytest

from flop_p2p.config import TopologySettings
from flop_p2p.config.gossip import GossipSettings
from flop_p2p.gossip.actions import (
    Action,
    Mix,
    SetTimer,
)
from flop_p2p.gossip.plan import GossipPlan, Plan
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
