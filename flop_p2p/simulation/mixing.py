"""Mixing of all bodies at once, in place: ``X <- W X`` block by block, and how far from consensus they are."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from flop_p2p.simulation.ranks import ALONE, Ranks
from flop_p2p.topology import fewest_senders

BLOCK_BYTES = 8 * 2**20
DENSE_SITES = 64


def mix_in_place(bodies: Tensor, weights: Tensor, others: Tensor | None = None) -> None:
    """Replace ``bodies`` by ``weights @ bodies``, or by ``weights @ [bodies, others]``.

    Extra memory is one block of about 8 MiB, whatever the size of the bodies.

    Args:
        bodies: ``[sites, parameters]``, float32.
        weights: mixing matrix ``[sites, sites and others]`` as `mixing_tensor` gives it.
        others: ``[others, parameters]``, only read.
    """
    width = max(1, BLOCK_BYTES // (4 * weights.shape[1]))
    for start in range(0, bodies.shape[1], width):
        block = bodies[:, start : start + width]
        whole = block if others is None else torch.cat([block, others[:, start : start + width]])
        block.copy_(weights @ whole)


def average_in_place(bodies: Tensor, weights: Tensor, ranks: Ranks = ALONE) -> None:
    """Replace every row of ``bodies`` by the mean of all rows, also those of other ranks: the server's step.

    Args:
        weights: that of each row, ``[sites]``; at all ranks together they sum to one.
    """
    bodies.copy_(ranks.sum(weights @ bodies).expand_as(bodies))


def consensus_distance(bodies: Tensor, ranks: Ranks = ALONE) -> float:
    """Root mean square distance of the bodies ``[sites, parameters]`` of all ranks from their mean."""
    sites = sum(ranks.share(lambda: len(bodies)))
    mean = ranks.sum(bodies.sum(dim=0)) / sites
    squares = torch.stack([(body - mean).square().sum() for body in bodies])
    return math.sqrt(sum(ranks.share(lambda: float(squares.sum()))) / sites)


def mixing_tensor(matrix: csr_array, device: torch.device) -> Tensor:
    """The mixing matrix ``[sites, sites and others]`` in float32: dense up to 64 sites, above that sparse.

    The cost of mixing then grows with the edges.
    """
    if matrix.shape[0] <= DENSE_SITES:
        return torch.from_numpy(matrix.toarray()).float().to(device)
    edges = matrix.tocoo()
    positions = torch.from_numpy(np.vstack([edges.row, edges.col]))
    return torch.sparse_coo_tensor(
        positions, torch.from_numpy(edges.data).float(), matrix.shape, device=device, check_invariants=False
    ).coalesce()


def without_senders(matrix: csr_array, silent: Sequence[int]) -> csr_array:
    """The mixing matrix of a round in which the sites at these positions send nothing, as `weighted_sum` has it.

    What a receiver would give to them goes to itself, so every row still sums to one.
    """
    return _without(matrix, np.isin(matrix.tocoo().col, silent))


def without_few_senders(matrix: csr_array, whole: csr_array) -> csr_array:
    """The mixing matrix in which who receives from too few of its senders for a sum of masked bodies receives nothing.

    Args:
        whole: the matrix in which all send.
    """
    entries = matrix.tocoo()
    few = [
        now < fewest_senders(all_of_them) for now, all_of_them in zip(_senders(matrix), _senders(whole), strict=True)
    ]
    return _without(matrix, np.array(few)[entries.row])


def _senders(matrix: csr_array) -> np.ndarray:
    """From how many others each site receives, ``[sites]``."""
    entries = matrix.tocoo()
    return np.bincount(entries.row[entries.row != entries.col], minlength=matrix.shape[0])


def _without(matrix: csr_array, gone: np.ndarray) -> csr_array:
    """Without these entries ``[entries]``, but for those of the diagonal, to which their weights go."""
    entries = matrix.tocoo()
    gone = gone & (entries.row != entries.col)
    missing = np.zeros(matrix.shape[0])
    np.add.at(missing, entries.row[gone], entries.data[gone])
    kept = csr_array((entries.data[~gone], (entries.row[~gone], entries.col[~gone])), shape=matrix.shape)
    hushed = csr_array(kept + diags_array(missing))
    hushed.sort_indices()
    return hushed
