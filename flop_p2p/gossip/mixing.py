"""Which bodies a round mixes, with which weights."""

from collections.abc import Mapping

from flop_p2p.gossip.actions import Mix, Part
from flop_p2p.gossip.plan import Plan


def weighted_sum(plan: Plan, name: str, round_index: int, held: Mapping[str, int | None]) -> Mix:
    """The plan's weights over what is here.

    The weight of an absent neighbour goes to the site itself. A server has no body of its own: what is here
    shares the absent weights in proportion, unless nothing is.

    Args:
        held: the round of the body held of each neighbour that the round mixes, ascending by name; None for none.
    """
    weights = plan.weights(round_index)
    absent = tuple(neighbour for neighbour, body_round in held.items() if body_round is None)
    missing = sum(weights[neighbour] for neighbour in absent)
    present = sum(weights[neighbour] for neighbour in held if neighbour not in absent)
    own, scale = weights.get(name, 0.0), 1.0
    if plan.trains or not present:
        own += missing
    elif absent:
        scale = 1 / present
    parts = tuple(
        Part(neighbour, body_round, weights[neighbour] * scale)
        for neighbour, body_round in held.items()
        if body_round is not None
    )
    return Mix(round_index, own, parts, absent)


def mean(round_index: int, bodies: Mapping[str, int]) -> Mix:
    """The mean of the neighbours' ``bodies`` (their rounds, by name) instead of the own."""
    parts = tuple(Part(neighbour, bodies[neighbour], 1 / len(bodies)) for neighbour in sorted(bodies))
    return Mix(round_index, 0.0, parts, catches_up=True)
