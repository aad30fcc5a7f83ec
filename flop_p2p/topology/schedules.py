"""Schedules: which mixing matrix is used in which round."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array, csr_array, eye_array

from flop_p2p.config.topology import Weighting
from flop_p2p.seeding import derive
from flop_p2p.topology.graphs import exponential_hops


@dataclass(frozen=True)
class Schedule:
    """The mixing matrices of all rounds, over sites in the order of ``sites``.

    ``period`` is 1 for a static topology, p for one that repeats after p rounds, and None for one that is
    drawn anew in each round. ``doubly_stochastic`` says whether the rows and columns of every round sum to
    one, so that all sites count the same in the long run.
    """

    name: str
    sites: tuple[str, ...]
    period: int | None
    doubly_stochastic: bool
    weighting: Weighting
    matrices: Callable[[int], csr_array] = field(repr=False, compare=False)

    def mixing(self, round_index: int) -> csr_array:
        """W ``[sites, sites]`` float64 of a round counted from 0: W_ij is the weight i gives to j's body.

        The matrix of a static or periodic schedule is kept and handed out again: do not modify it.
        """
        return self.matrices(round_index if self.period is None else round_index % self.period)


def one_peer_exponential(sites: int) -> tuple[csr_array, ...]:
    """One period of the one-peer exponential graph (Ying et al., NeurIPS 2021, equation 7).

    In round t each site averages its body with that of the site 2^(t mod ceil(log2 n)) places further.
    With n = 2^k sites, k rounds give the exact mean.
    """
    return tuple(_circulant(sites, hop) for hop in exponential_hops(sites))


def _circulant(sites: int, hop: int) -> csr_array:
    everyone = np.arange(sites)
    halves = np.full(sites, 0.5)
    further = coo_array((halves, (everyone, (everyone + hop) % sites)), shape=(sites, sites))
    return _sorted(further + eye_array(sites) / 2)


def epidemic(sites: int, fanout: int, seed: int) -> Callable[[int], csr_array]:
    """Epidemic learning without coordination (EL-Local; de Vos et al., NeurIPS 2023, Algorithm 1).

    In every round each site sends its body to ``fanout`` others drawn at random, and takes the plain mean
    of its own body and those it received. Rows sum to one, columns on average only. The matrix of a round
    depends on ``seed`` and the round alone.
    """
    return functools.partial(_epidemic_round, sites, fanout, seed)


def _epidemic_round(sites: int, fanout: int, seed: int, round_index: int) -> csr_array:
    draw = derive(seed, "epidemic", round_index)
    sender = np.repeat(np.arange(sites), fanout)
    receiver = np.concatenate([draw.choice(sites - 1, fanout, replace=False) for _ in range(sites)])
    receiver += receiver >= sender  # leave the sender itself out
    received = np.bincount(receiver, minlength=sites)
    links = coo_array((1 / (1 + received[receiver]), (receiver, sender)), shape=(sites, sites))
    own = coo_array((1 / (1 + received), (np.arange(sites), np.arange(sites))), shape=(sites, sites))
    return _sorted(links + own)


def reorder(matrix: csr_array, order: Sequence[int]) -> csr_array:
    """The matrix whose row and column i were ``order[i]``."""
    return _sorted(matrix[order][:, order])


def _sorted(matrix: csr_array) -> csr_array:
    matrix = csr_array(matrix)
    matrix.sort_indices()
    return matrix
