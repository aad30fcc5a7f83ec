"""The bodies that one mixing matrix carries from rank to rank: each once for every rank that needs it."""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from flop_p2p.simulation.placement import Placement


class Boundary:
    """What this rank sends and receives in a round, and the part of the mixing matrix that it applies.

    Args:
        matrix: mixing matrix ``[sites, sites]`` with sorted indices.

    Attributes:
        matrix: its rows for the sites held here, ``[own sites, own sites + received]``. In each row the weights keep
            the ascending order of the sites, in which they are summed up, so its indices are not sorted.
        received: bodies that come from other ranks.
    """

    def __init__(self, matrix: csr_array, placement: Placement) -> None:
        self._ranks = placement.ranks
        own = placement.own
        rows = matrix[own]
        needed = np.unique(rows.indices)
        others = [rank for rank in range(self._ranks.count) if rank != self._ranks.rank]
        column = np.empty(matrix.shape[1], dtype=rows.indices.dtype)
        column[own] = np.arange(len(own))
        self.received = 0
        self._incoming: dict[int, slice] = {}
        self._outgoing: dict[int, Tensor] = {}
        for rank in others:
            block = placement.blocks[rank]
            wanted = np.intersect1d(needed, block)
            if len(wanted):
                first, self.received = self.received, self.received + len(wanted)
                column[wanted] = np.arange(first, self.received) + len(own)
                self._incoming[rank] = slice(first, self.received)
            given = np.intersect1d(np.unique(matrix[block].indices), own)
            if len(given):
                self._outgoing[rank] = torch.from_numpy(np.searchsorted(own, given))
        shape = (len(own), len(own) + self.received)
        self.matrix = csr_array((rows.data, column[rows.indices], rows.indptr), shape=shape)

    def exchange(self, bodies: Tensor) -> Tensor:
        """The bodies that come from other ranks, ``[received, numbers]``, while theirs are handed out.

        Args:
            bodies: ``[own sites, numbers]``, or the same columns of them at all ranks.

        Raises:
            RunError: a rank was lost.
        """
        received = bodies.new_empty(self.received, bodies.shape[1])
        outgoing = {rank: bodies[rows.to(bodies.device)] for rank, rows in self._outgoing.items()}
        self._ranks.swap(outgoing, {rank: received[rows] for rank, rows in self._incoming.items()})
        return received
