"""How many messages a neighbour may send: far more than any node needs, far fewer than would fill a disk with lines."""

import time

RATE = 200.0  # messages a second
BURST = 400.0  # messages at once


class Throttle:
    """A token bucket."""

    def __init__(self) -> None:
        self._left = BURST
        self._filled = time.monotonic()

    def allows(self) -> bool:
        """Whether one more message is within bounds; it is counted."""
        now = time.monotonic()
        self._left = min(BURST, self._left + RATE * (now - self._filled))
        self._filled = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
