"""How many messages a neighbour may send: far more than any node needs, far fewer than would fill a disk with lines."""

import time

RATE = 200.0  # messages a second
BURST = 400.0  # messages at once


class Throttle:
    """A token bucket.

    Args:
        rate: how many a second in the long run.
        burst: how many at once.
    """

    def __init__(self, rate: float = RATE, burst: float = BURST) -> None:
        self._rate, self._burst = rate, burst
        self._left = burst
        self._filled = time.monotonic()

    def allows(self) -> bool:
        """Whether one more message is within bounds; it is counted."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + self._rate * (now - self._filled))
        self._filled = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def allow_another(self) -> None:
        """One more than otherwise: what was counted last was called for."""
        self._left += 1.0
