"""When the dialling side tries again: sooner after a loss, ever later while nobody answers, late after a refusal."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from flop_p2p.errors import TransportError
from flop_p2p.transport.link import Link
from flop_p2p.transport.routes import RefusedError


class Dialler:
    """Keeps the connection to one neighbour.

    Args:
        converse: one connection from beginning to end; raises LinkError where it fails.
        first_delay: seconds before the second attempt; doubled with each further one.
        longest_delay: seconds between attempts at most, and after a refusal or a goodbye.
    """

    def __init__(
        self, link: Link, converse: Callable[[Link], Awaitable[None]], first_delay: float, longest_delay: float
    ) -> None:
        self._link, self._converse = link, converse
        self._first_delay, self._longest_delay = first_delay, longest_delay

    async def run(self) -> None:
        """Dial for ever. Delays are drawn at random between half and all of what is due, so that nodes spread out."""
        delay = self._first_delay
        while True:
            delay = await self._attempt(delay)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))

    async def _attempt(self, delay: float) -> float:
        """Converse once. Returns the delay that is due before the next attempt, given the last one."""
        try:
            await self._converse(self._link)
        except RefusedError as error:
            self._link.lose(str(error))
            self._link.fail(str(error), refused=True)
            return self._longest_delay
        except TransportError as error:
            if self._link.way is not None:
                self._link.lose(str(error))
                return self._first_delay
            self._link.fail(str(error), refused=False)
            return min(2 * delay, self._longest_delay)
        return self._longest_delay if self._link.status.state == "left" else self._first_delay
