"""Mixing of all bodies at once, in place: ``X <- W X`` block by block, and how far from consensus they are."""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

BLOCK_BYTES = 8 * 2**20
DENSE_SITES = 64


def mix_in_place(bodies: Tensor, matrix: csr_array) -> None:
    """Replace ``bodies`` by ``matrix @ bodies``.

    Extra memory is one block of about 8 MiB, whatever the size of the bodies. Up to 64 sites the product is
    dense, above that sparse, so that its cost grows with the edges.

    Args:
        bodies: ``[sites, parameters]``, float32.
        matrix: mixing matrix ``[sites, sites]``.
    """
    weights = _as_tensor(matrix, bodies.device)
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


def _as_tensor(matrix: csr_array, device: torch.device) -> Tensor:
    if matrix.shape[0] <= DENSE_SITES:
        return torch.from_numpy(matrix.toarray()).float().to(device)
    edges = matrix.tocoo()
    positions = torch.from_numpy(np.vstack([edges.row, edges.col]))
    return torch.sparse_coo_tensor(
        positions, torch.from_numpy(edges.data).float(), matrix.shape, device=device, check_invariants=False
    ).coalesce()
