"""Which schedules go with compression and with masked gossip."""

from flop_p2p.config import GossipSettings
from flop_p2p.errors import TopologyError
from flop_p2p.topology.schedules import Schedule

FEWEST_SENDERS = 2  # that a site needs in every round of masked gossip


def fewest_senders(senders: int) -> int:
    """Of how many of a receiver's ``senders`` masked gossip forms a sum, at least: two thirds of them, and two.

    The receiver says who takes part. If it could leave out all but one accomplice, it would learn a single body from
    the sum; and no two lists may have no sender in common, or it could ask for two sums in one round.
    """
    return max(FEWEST_SENDERS, senders - senders // 3)


def check_compression(gossip: GossipSettings, schedule: Schedule) -> None:
    """Refuse compression by changes where two neighbours do not tell each other of every change.

    Raises:
        TopologyError: top-k with edges that are directed or change by the round.
    """
    if gossip.compression != "top-k":
        return
    remedy = "use bfloat16 or int8, or an undirected static topology"
    if schedule.period != 1:
        raise TopologyError(f"topology {schedule.name!r}: top-k needs the same edges in all rounds; {remedy}")
    edges = schedule.mixing(0) != 0
    if (edges != edges.T).nnz:
        raise TopologyError(f"topology {schedule.name!r}: top-k needs edges that work both ways; {remedy}")


def check_masking(schedule: Schedule) -> None:
    """Refuse masked gossip where a site receives from one other only: the sum of one body is that body.

    Raises:
        TopologyError: in some round a site receives from fewer than two others, or the edges are drawn anew in each.
    """
    remedy = "with privacy.masking every site needs two senders in every round; use a ring, a torus or a full mesh"
    if schedule.period is None:
        raise TopologyError(f"topology {schedule.name!r}: draws its edges anew in every round; {remedy}")
    for round_index in range(schedule.period):
        matrix = schedule.mixing(round_index)
        senders = (matrix != 0).sum(axis=1) - (matrix.diagonal() != 0)
        if senders.min() < FEWEST_SENDERS:
            site = schedule.sites[int(senders.argmin())]
            raise TopologyError(
                f"topology {schedule.name!r}: {site!r} receives from {senders.min()} other "
                f"in round {round_index + 1}; {remedy}"
            )
