"""SGD, Adam and AdamW whose state is one flat vector, so that it can be kept, shared, stored or dropped as a whole."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from flop_p2p.config import TrainingSettings

BETAS, EPSILON = (0.9, 0.999), 1e-8


class Optimizer:
    """The gradient steps of `torch.optim`, in their functional form.

    Its classes draw in torch's compiler, whose import takes as long as that of torch.

    Args:
        parameters: those to train; one without a gradient is left as it is in that step.

    Attributes:
        numbers: how many the state has: none for plain SGD, the momentum of every weight, or two moments of every
            weight and a counter a tensor for Adam (Kingma and Ba 2015).
    """

    def __init__(self, parameters: Sequence[nn.Parameter], settings: TrainingSettings) -> None:
        self._parameters = list(parameters)
        self._settings = settings
        self._vectors = {"sgd": int(settings.momentum > 0), "adam": 2, "adamw": 2}[settings.optimizer]
        weights = sum(parameter.numel() for parameter in self._parameters)
        counters = len(self._parameters) if self._vectors == 2 else 0
        self.numbers = self._vectors * weights + counters
        device = self._parameters[0].device if self._parameters else None
        self.bind(torch.zeros(self.numbers, device=device))

    def bind(self, state: Tensor) -> None:
        """Make ``state`` ``[numbers]``, float32, the state that is read and written; zeros are that of a beginning."""
        self.state = state
        numbers = iter(torch.split(state, self._sizes()))
        self._moments = [
            [next(numbers).view_as(parameter) for parameter in self._parameters] for _ in range(self._vectors)
        ]
        self._counters = [counter.view(()) for counter in numbers]

    def reset(self) -> None:
        """Forget all steps taken."""
        self.state.zero_()

    def clear_gradients(self) -> None:
        """What is frozen next must not be moved by an old gradient."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self, lr: float) -> None:
        """Move every parameter that has a gradient."""
        chosen = [index for index, parameter in enumerate(self._parameters) if parameter.grad is not None]
        weights: list[Tensor] = [self._parameters[index] for index in chosen]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        moments = [[vector[index] for index in chosen] for vector in self._moments]
        with torch.no_grad():
            if self._settings.optimizer == "sgd":
                self._sgd(weights, gradients, moments[0] if moments else [None] * len(chosen), lr)
            else:
                self._adam(weights, gradients, moments, [self._counters[index] for index in chosen], lr)

    def _sgd(self, weights: list[Tensor], gradients: list[Tensor], momenta: Sequence[Tensor | None], lr: float) -> None:
        sgd(
            weights,
            gradients,
            list(momenta),
            fused=True,
            weight_decay=self._settings.weight_decay,
            momentum=self._settings.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def _adam(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        moments: list[list[Tensor]],
        counters: list[Tensor],
        lr: float,
    ) -> None:
        move = adam if self._settings.optimizer == "adam" else adamw
        move(
            weights,
            gradients,
            moments[0],
            moments[1],
            [],
            counters,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=self._settings.weight_decay,
            eps=EPSILON,
            maximize=False,
        )

    def _sizes(self) -> list[int]:
        sizes = [parameter.numel() for parameter in self._parameters]
        return sizes * self._vectors + [1] * (len(sizes) if self._vectors == 2 else 0)
