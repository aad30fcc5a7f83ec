"""Where a round of training was left, so that it can go on exactly there."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Partway:
    """A round that paused between two gradient steps.

    losses: of the steps taken, float32 ``[steps]``.
    random: the state of torch's global generators, of the processor and of the GPU in use if there is one.
    """

    losses: Tensor
    random: tuple[Tensor, ...]

    @classmethod
    def now(cls, losses: Sequence[Tensor]) -> "Partway":
        """After steps with these ``losses`` (scalars on the device of the training), with the present random state."""
        random = [torch.get_rng_state()]
        if losses[0].is_cuda:
            random.append(torch.cuda.get_rng_state(losses[0].device))
        return cls(torch.stack(list(losses)).cpu(), tuple(random))

    @property
    def step(self) -> int:
        """Gradient steps taken."""
        return len(self.losses)

    def restore_random(self, device: torch.device) -> None:
        """Put torch's global generators, of the processor and of ``device``, back into the state that they had."""
        torch.set_rng_state(self.random[0])
        for state in self.random[1:]:
            torch.cuda.set_rng_state(state, device)
