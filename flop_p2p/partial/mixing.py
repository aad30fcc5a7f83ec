"""The weighted sum of bodies that a site forms in a round: ``u_i <- sum_j W_ij u_j``, block by block."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flop_p2p.errors import SplitError

Vector = NDArray[np.float32]
BLOCK = 1 << 16  # numbers summed at a time, so that the scratch memory stays in the processor's cache


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
        total[:] = 0
        for _, factor, body in terms:
            part = scaled[: len(block)]
            np.multiply(body[start : start + BLOCK], np.float32(factor), out=part)
            total[: len(block)] += part
        block[:] = total[: len(block)]
