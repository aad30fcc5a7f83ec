"""Mixing of all bodies at once, in place: ``X <- W X`` block by block, and how far from consensus they are."""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

BLOCK_BYTES = 8 * 2**20
DENSE_SITES = 64


def mix_in_place(bodies: Tensor, weights: Tensor) -> None:
    """Replace ``bodies`` by ``weights @ bodies``.

    Extra memory is one block of about 8 MiB, whatever the size of the bodies.

    Args:
        bodies: ``[sites, parameters]``, float32.
        weights: mixing matrix ``[sites, sites]`` as `mixing_tensor` gives it.
    """
    width = max(1, BLOCK_BYTES // (4 * bodies.shape[0]))
    for block in torch.split(bodies, width, dim=1):
        block.copy_(weights @ block)


def average_in_place(bodies: Tensor, weights: Tensor) -> None:
    """Replace every row of ``bodies`` by the rows' mean, weighted by ``weights`` ``[sites]``: the server's step."""
    bodies.copy_((weights @ bodies).expand_as(bodies))


def consensus_distance(bodies: Tensor) -> float:
    """Root mean square distance of the sites' bodies ``[sites, parameters]`` from their mean."""
    mean = bodies.mean(dim=0)
    squares = torch.stack([(body - mean).square().sum() for body in bodies])
    return float(squares.mean().sqrt())


def mixing_tensor(matrix: csr_array, device: torch.device) -> Tensor:
    """The mixing matrix ``[sites, sites]`` in float32: dense up to 64 sites, above that sparse.

    The cost of mixing then grows with the edges.
    """
    if matrix.shape[0] <= DENSE_SITES:
        return torch.from_numpy(matrix.toarray()).float().to(device)
    edges = matrix.tocoo()
    positions = torch.from_numpy(np.vstack([edges.row, edges.col]))
    return torch.sparse_coo_tensor(
        positions, torch.from_numpy(edges.data).float(), matrix.shape, device=device, check_invariants=False
    ).coalesce()
