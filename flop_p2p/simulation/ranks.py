"""The processes that make up one run, called ranks; all do the same steps, each for the sites that it holds."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

from flop_p2p.errors import FlopError

Value = TypeVar("Value")


class Ranks:
    """A run of one process; `flop_p2p.simulation.torchrun` has the one of many.

    What is called here has to be called by all ranks, in the same order, or they would wait for each other.

    Attributes:
        rank: the number of this process; rank 0 writes the run directory and shows progress.
        count: how many there are.
    """

    rank = 0
    count = 1

    def share(self, compute: Callable[[], Value]) -> list[Value]:
        """What ``compute`` gives at each rank, by rank, at all of them. It must be plain enough for msgpack.

        Raises:
            FlopError: what ``compute`` raised, at whichever rank.
            RunError: a rank was lost.
        """
        return [compute()]

    def sum(self, tensor: Tensor) -> Tensor:
        """``tensor``, replaced by the sum of those of all ranks.

        Raises:
            RunError: a rank was lost.
        """
        return tensor

    def swap(self, outgoing: Mapping[int, Tensor], incoming: Mapping[int, Tensor]) -> None:
        """Send tensors to other ranks and fill those that come from other ranks, by rank; all are contiguous.

        Raises:
            RunError: a rank was lost.
        """

    def device(self, name: str) -> str:
        """The device of this rank where the settings say ``name``."""
        return name

    def of_first(self, compute: Callable[[], Value]) -> Value:
        """What ``compute`` gives at rank 0, which alone is asked; raises as `share`."""
        values: list[Value] = self.share(lambda: compute() if self.rank == 0 else None)  # type: ignore[arg-type, return-value]
        return values[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """An error in the block at one rank is raised at all, after the block; nothing is to be shared in it."""
        failed: FlopError | None = None
        try:
            yield
        except FlopError as error:
            failed = error

        def tell() -> None:
            if failed is not None:
                raise failed

        self.share(tell)


ALONE = Ranks()
