"""What happens to the bodies between two rounds of training: nothing, a server's average, or gossip.

Traffic is counted in bytes of bodies sent; message headers are not simulated.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from flop_p2p.config import ExperimentSettings
from flop_p2p.partial import mix_rows
from flop_p2p.seeding import derive
from flop_p2p.simulation.methods import Method
from flop_p2p.simulation.mixing import average_in_place, mix_in_place, mixing_tensor
from flop_p2p.topology import Schedule, build_schedule
from flop_p2p.topology.analysis import edges_between

FEW_NEIGHBOURS = 8  # weights a row, the own one included; with more the matrix product is much faster


class Exchange(Protocol):
    """One way to exchange bodies. Rounds are counted from 0."""

    participants: int  # sites, and one more where there is a server
    doubly_stochastic: bool | None  # None where no topology is used

    def trains(self, round_index: int) -> np.ndarray:
        """Positions of the sites that train in this round, ascending."""

    def mix(self, bodies: Tensor, round_index: int) -> None:
        """Exchange ``bodies`` ``[sites, parameters]`` in place."""

    def messages(self, round_index: int) -> np.ndarray:
        """Bodies sent plus received in this round, a participant; the server comes last."""


class NoExchange:
    """Every site keeps its body."""

    doubly_stochastic: bool | None = None

    def __init__(self, sites: int) -> None:
        self.participants = sites

    def trains(self, round_index: int) -> np.ndarray:  # noqa: ARG002
        """All sites."""
        return np.arange(self.participants)

    def mix(self, bodies: Tensor, round_index: int) -> None:
        """Leave everything as it is."""

    def messages(self, round_index: int) -> np.ndarray:  # noqa: ARG002
        """None at all."""
        return np.zeros(self.participants, dtype=np.int64)


class ServerExchange:
    """A server averages the bodies of the sites that trained and hands the mean to all (McMahan et al. 2017).

    Args:
        weights: weight of each site, ``[sites]``: ones, or numbers of training samples.
        fraction: share of sites drawn to train in a round; at least one trains.
    """

    doubly_stochastic: bool | None = None

    def __init__(self, weights: Sequence[float], fraction: float, seed: int) -> None:
        self._weights = np.asarray(weights, dtype=np.float64)
        self._count = max(1, round(fraction * len(self._weights)))
        self._seed = seed
        self.participants = len(self._weights) + 1

    def trains(self, round_index: int) -> np.ndarray:
        """The sites that the server draws for this round."""
        draw = derive(self._seed, "participation", round_index)
        return np.sort(draw.choice(len(self._weights), self._count, replace=False))

    def mix(self, bodies: Tensor, round_index: int) -> None:
        """Every row becomes the weighted mean of the rows that trained."""
        chosen = self.trains(round_index)
        weights = np.zeros_like(self._weights)
        weights[chosen] = self._weights[chosen] / self._weights[chosen].sum()
        average_in_place(bodies, torch.from_numpy(weights).float().to(bodies.device))

    def messages(self, round_index: int) -> np.ndarray:
        """One upload from each site that trained, one download to every site."""
        messages = np.ones(self.participants, dtype=np.int64)
        messages[self.trains(round_index)] += 1
        messages[-1] = messages[:-1].sum()
        return messages


class GossipExchange:
    """Every site mixes what it receives from its neighbours: ``X <- W X``."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._matrix: csr_array | None = None
        self.participants = len(schedule.sites)
        self.doubly_stochastic: bool | None = schedule.doubly_stochastic

    def trains(self, round_index: int) -> np.ndarray:  # noqa: ARG002
        """All sites."""
        return np.arange(self.participants)

    def mix(self, bodies: Tensor, round_index: int) -> None:
        """Mix with the matrix of this round: where sites have few neighbours, to the bit as their nodes would."""
        matrix = self._schedule.mixing(round_index)
        if bodies.device.type == "cpu" and matrix.nnz <= FEW_NEIGHBOURS * self.participants:
            mix_rows(bodies.numpy(), matrix)
            return
        if matrix is not self._matrix:  # a static topology gives the same one each time
            self._matrix, self._weights = matrix, mixing_tensor(matrix, bodies.device)
        mix_in_place(bodies, self._weights)

    def messages(self, round_index: int) -> np.ndarray:
        """One body along every edge of this round."""
        edges = edges_between(self._schedule.mixing(round_index))
        received: np.ndarray = np.diff(edges.indptr)
        return received + np.bincount(edges.indices, minlength=self.participants)


def build_exchange(
    method: Method, settings: ExperimentSettings, sites: Sequence[str], samples: Sequence[int]
) -> Exchange:
    """The exchange of ``method`` over ``sites`` with so many training ``samples`` each.

    Raises:
        TopologyError: the topology does not exist for these sites or cannot be weighted by samples.
    """
    if method.exchange == "gossip":
        return GossipExchange(build_schedule(settings.topology, sites, samples, settings.seed))
    if method.exchange == "server":
        weights = samples if settings.topology.weighting == "samples" else [1] * len(sites)
        return ServerExchange(weights, settings.training.participation, settings.seed)
    return NoExchange(1 if method.pooled else len(sites))
