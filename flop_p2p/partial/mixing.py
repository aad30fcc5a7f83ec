"""The weighted sum of bodies that a site forms in a round: ``u_i <- sum_j W_ij u_j``, block by block."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from flop_p2p.errors import SplitError

Vector = NDArray[np.float32]
BLOCK = 1 << 16  # numbers summed at a time, so that the scratch memory stays in the processor's cache
ROWS_BLOCK_BYTES = 1 << 20  # of all sites together, likewise


def mix(own: Vector, name: str, weight: float, parts: Sequence[tuple[str, float, Vector]]) -> None:
    """Replace ``own`` by its weighted sum with ``parts``, in ascending order of names.

    Extra memory is two blocks of 256 KiB, whatever the size of the bodies.

    Args:
        own: ``[parameters]``, the body of the site ``name``, which gets ``weight`` (0 to count nothing).
        parts: name, weight and body ``[parameters]`` of each neighbour; none is written to.

    Raises:
        SplitError: a body has another size or type, or a name comes twice.
    """
    names = [name, *(part[0] for part in parts)]
    if len(set(names)) < len(names):
        raise SplitError(f"each body is mixed once, got {', '.join(sorted(names))}")
    for other, _, body in parts:
        if body.shape != own.shape or body.dtype != np.float32:
            raise SplitError(
                f"the body of {other} is {list(body.shape)} of {body.dtype}; {list(own.shape)} of float32 is needed"
            )
    terms = sorted([(name, weight, own), *parts], key=lambda term: term[0])
    total, scaled = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for start in range(0, len(own), BLOCK):
        block = own[start : start + BLOCK]
        pieces = [(factor, body[start : start + BLOCK]) for _, factor, body in terms]
        block[:] = _weighted_sum(pieces, total[: len(block)], scaled[: len(block)])


def mix_rows(bodies: Vector, matrix: csr_array, others: Vector | None = None) -> None:
    """Replace ``bodies`` by ``matrix @ bodies``, or by ``matrix @ [bodies, others]``; the cost grows with the edges.

    A sparse product multiplies and adds in the order of the indices, as `mix` does: on x86-64 both give each site the
    same bits. Extra memory is three blocks of 1 MiB, whatever the size of the bodies.

    Args:
        bodies: ``[sites, parameters]``.
        matrix: mixing matrix ``[sites, sites and others]``; the indices of a row in ascending order of the names.
        others: ``[others, parameters]``, only read.
    """
    weights = csr_array((matrix.data.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
    width = max(1, ROWS_BLOCK_BYTES // (4 * matrix.shape[1]))
    for start in range(0, bodies.shape[1], width):
        block = bodies[:, start : start + width]
        whole = block if others is None else np.concatenate([block, others[:, start : start + width]])
        block[:] = weights @ whole


def _weighted_sum(pieces: Iterable[tuple[float, Vector]], total: Vector, scaled: Vector) -> Vector:
    """The sum of weighted vectors in their order, in ``total``."""
    total[:] = 0
    for factor, piece in pieces:
        np.multiply(piece, np.float32(factor), out=scaled)
        total += scaled
    return total
