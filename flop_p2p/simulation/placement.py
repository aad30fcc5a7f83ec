"""Which rank holds which sites: neighbours together, so that few edges cross ranks, and as many gradient steps each."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from flop_p2p.errors import RunError
from flop_p2p.simulation.ranks import ALONE, Ranks
from flop_p2p.topology import Schedule
from flop_p2p.topology.analysis import edges_between


@dataclass(frozen=True)
class Placement:
    """Each rank with the positions of its sites, ascending; together they are all sites, each once."""

    ranks: Ranks
    blocks: tuple[np.ndarray, ...]

    @property
    def own(self) -> np.ndarray:
        """Positions of the sites that this rank holds: the rows of its matrices."""
        return self.blocks[self.ranks.rank]

    @property
    def sites(self) -> int:
        """How many all ranks hold together."""
        return sum(map(len, self.blocks))


def together(sites: int) -> Placement:
    """All sites in one process."""
    return Placement(ALONE, (np.arange(sites),))


def place(ranks: Ranks, steps: Sequence[int], schedule: Schedule | None = None) -> Placement:
    """Spread sites over ``ranks``; all ranks come to the same result.

    Args:
        steps: gradient steps of each site in a round.
        schedule: who exchanges with whom; without one the order of the sites is kept.

    Raises:
        RunError: there are more ranks than sites.
    """
    if ranks.count > len(steps):
        raise RunError(f"{ranks.count} processes for {len(steps)} sites: start one a site at most (--nproc-per-node)")
    everyone = np.arange(len(steps))
    if schedule is None or ranks.count == 1:
        return Placement(ranks, _ascending(even_blocks(everyone, steps, ranks.count)))
    rounds = _edges(schedule)
    orders = (everyone, neighbourly_order(rounds))
    candidates = [_ascending(even_blocks(order, steps, ranks.count)) for order in orders]
    return Placement(ranks, min(candidates, key=lambda blocks: transfers(rounds, blocks)))


def neighbourly_order(rounds: Sequence[csr_array]) -> np.ndarray:
    """Positions of the sites in an order that has neighbours close to each other, whatever their numbers.

    Reverse Cuthill-McKee (Cuthill and McKee 1969, George 1971), over the edges of all ``rounds`` together. Rings, tori
    and other families that are numbered along their shape need it only where sites come in another order.
    """
    edges = functools.reduce(lambda done, edges: done + edges, rounds)
    return np.asarray(reverse_cuthill_mckee(csr_array(edges + edges.T), symmetric_mode=True))


def transfers(rounds: Sequence[csr_array], blocks: Sequence[np.ndarray]) -> int:
    """Bodies that travel between ranks in all ``rounds``: each once for every other rank that needs it in a round."""
    rank_of = np.empty(sum(map(len, blocks)), dtype=np.int64)
    for rank, block in enumerate(blocks):
        rank_of[block] = rank
    count = 0
    for edges in rounds:
        receiver, sender = edges.tocoo().coords
        crosses = rank_of[receiver] != rank_of[sender]
        count += len(np.unique(rank_of[receiver[crosses]] * len(rank_of) + sender[crosses]))
    return count


def _edges(schedule: Schedule) -> list[csr_array]:
    """Who sends to whom in each round of a period; where rounds are drawn anew, in the first."""
    return [edges_between(schedule.mixing(index)) for index in range(schedule.period or 1)]


def _ascending(blocks: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    return tuple(np.sort(block) for block in blocks)


def even_blocks(order: np.ndarray, steps: Sequence[int], count: int) -> list[np.ndarray]:
    """``order`` cut into so many pieces, none of them empty, whose sums of ``steps`` are about equal."""
    done = np.cumsum(np.asarray(steps, dtype=np.float64)[order])
    middles = done - np.asarray(steps, dtype=np.float64)[order] / 2
    cuts: list[int] = []
    for piece in range(1, count):
        cut = int(np.searchsorted(middles, done[-1] * piece / count))
        least, most = (cuts[-1] if cuts else 0) + 1, len(order) - (count - piece)
        cuts.append(min(max(cut, least), most))
    return np.split(order, cuts)
