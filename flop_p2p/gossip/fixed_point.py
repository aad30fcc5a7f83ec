"""Fixed-point numbers: weighted bodies as integers modulo 2^32, whose sum is exact and the same in any order.

A number x becomes the integer nearest to ``x * scale``, where ``scale`` is a little less than 2^31 over the agreed
range: the weighted sum of bodies within the range then never wraps, for the weights of a row sum to at most one.
Integers are what masks can be added to: a uniform mask modulo 2^32 hides an integer completely, and nothing can hide a
floating-point number so.
"""

from collections.abc import Iterable

import numpy as np

from flop_p2p.errors import TrainingError, WireError
from flop_p2p.wire.encodings import SPAN, Masked, Numbers

ROOM = 1 << 16  # integers kept free at the ends of the range for what rounding adds: half of one for each summand


class FixedPoint:
    """The agreed fixed-point numbers.

    Args:
        limit: numbers lie within plus and minus this.

    Attributes:
        step: distance of two neighbouring numbers; rounding changes each summand by at most half of it, and by the 24
            binary digits of a float32.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._scale = (2**31 - ROOM) / limit
        self.step = 1 / self._scale

    def check(self, body: Numbers) -> None:
        """Refuse a body that does not fit: whoever receives the sum could not see that it wrapped.

        Raises:
            TrainingError: a number is beyond the range, or not finite.
        """
        for start in range(0, len(body), SPAN):
            piece = body[start : start + SPAN]
            if not max(piece.max(), -piece.min()) <= self.limit:  # false for NaN too
                position = start + int(np.argmax(~(np.abs(piece) <= self.limit)))
                raise TrainingError(
                    f"number {position} of the body is {body[position]:g}, and masking takes numbers within "
                    f"{self.limit:g} of zero; lower the learning rate, or raise privacy.masking_range at all sites"
                )

    def encode(self, body: Numbers, weight: float) -> Masked:
        """``weight * body`` in fixed point.

        Args:
            body: ``[parameters]``, checked before.
            weight: from 0 to 1.
        """
        integers = np.empty(len(body), np.uint32)
        factor, scaled = np.float32(weight * self._scale), np.empty(SPAN, np.float32)
        for start in range(0, len(body), SPAN):
            piece = body[start : start + SPAN]
            part = np.multiply(piece, factor, out=scaled[: len(piece)])
            integers[start : start + SPAN].view(np.int32)[:] = np.rint(part, out=part)
        return integers

    def mix(self, own: Numbers, weight: float, parts: Iterable[Masked], share: float, factor: float = 1.0) -> None:
        """Replace ``own`` by ``weight * own + factor * sum``, where sum is that of ``parts``.

        Args:
            own: ``[parameters]``.
            parts: encoded bodies ``[parameters]``, masked so that the masks cancel in their sum. The first is
                overwritten.
            share: what the weights of the parts sum to: no number of the sum is further from zero than this part of
                the range.

        Raises:
            WireError: a number of the sum is; then somebody sent something else, and ``own`` is as it was.
        """
        total, *others = parts
        bound = share * self.limit * self._scale + ROOM
        for start in range(0, len(total), SPAN):
            block = total[start : start + SPAN]
            for other in others:
                block += other[start : start + SPAN]
            signed = block.view(np.int32)
            if max(int(signed.max()), -int(signed.min())) > bound:
                raise WireError("the sum of the masked bodies is out of range: a participant sent something else")
        scaled, unit = np.empty(SPAN, np.float32), np.float32(factor * self.step)
        for start in range(0, len(own), SPAN):
            mine = own[start : start + SPAN]
            part = np.multiply(total[start : start + SPAN].view(np.int32), unit, out=scaled[: len(mine)])
            mine *= np.float32(weight)
            mine += part
