"""Which bodies a round mixes, with which weights."""

from collections import Counter
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


def nothing(mix: Mix) -> Mix:
    """The same round without anybody else's body."""
    absent = tuple(sorted({*mix.absent, *(part.name for part in mix.parts)}))
    return Mix(mix.round, 1.0, (), absent)


def masked_mean(plan: Plan, round_index: int, declared: Mapping[str, int]) -> Mix:
    """The weighted mean of masked bodies of one later round instead of the own: of the round with the most of them.

    A sum comes with the weights that this site gives in that round, so the mean has them too, in proportion.

    Args:
        declared: the rounds that neighbours declared masked bodies for, by name.
    """
    rounds = Counter(declared.values())
    chosen = max(rounds, key=lambda each: (rounds[each], each))
    weights = plan.weights(chosen)
    names = sorted(name for name, declared_round in declared.items() if declared_round == chosen and name in weights)
    total = sum(weights[name] for name in names)
    parts = tuple(Part(name, chosen, weights[name] / total) for name in names)
    return Mix(round_index, 0.0, parts, catches_up=True)


def mean(round_index: int, bodies: Mapping[str, int]) -> Mix:
    """The mean of the neighbours' ``bodies`` (their rounds, by name) instead of the own."""
    parts = tuple(Part(neighbour, bodies[neighbour], 1 / len(bodies)) for neighbour in sorted(bodies))
    return Mix(round_index, 0.0, parts, catches_up=True)
