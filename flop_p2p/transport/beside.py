"""Work on bytes that would keep the event loop from everything else is done in a thread beside it."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

SHORT = 1 << 18  # bytes; going to a thread and back takes as long as ciphering and hashing about as many
Result = TypeVar("Result")


async def beside(work: Callable[[], Result], size: int) -> Result:
    """The result of ``work`` on ``size`` bytes. Whoever is cancelled meanwhile leaves it running to its end."""
    if size < SHORT:
        return work()
    return await asyncio.get_running_loop().run_in_executor(None, work)
