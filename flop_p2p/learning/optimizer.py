"""SGD, Adam and AdamW whose state is one flat vector, so that it can be kept, shared, stored or dropped as a whole."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from flop_p2p.config import TrainingSettings

BETAS, EPSILON = (0.9, 0.999), 1e-8


class Optimizer:
    """The gradient steps of `torch.optim`, in their functional form, for one model or several of one kind at once.

    Its classes draw in torch's compiler, whose import takes as long as that of torch.

    Args:
        parameters: those to train, model after model; one without a gradient is left as it is in that step.
        models: how many models the parameters make up.

    Attributes:
        numbers: how many the state of a model has: none for plain SGD, the momentum of every weight, or two moments of
            every weight and a counter a tensor for Adam (Kingma and Ba 2015).
    """

    def __init__(self, parameters: Sequence[Tensor], settings: TrainingSettings, models: int = 1) -> None:
        self._parameters = list(parameters)
        self._models = models
        self._settings = settings
        self._vectors = {"sgd": int(settings.momentum > 0), "adam": 2, "adamw": 2}[settings.optimizer]
        tensors = len(self._parameters) // models
        sizes = [parameter.numel() for parameter in self._parameters[:tensors]]
        self._parts = sizes * self._vectors + [1] * (tensors if self._vectors == 2 else 0)
        self.numbers = sum(self._parts)
        device = self._parameters[0].device if self._parameters else None
        self.bind(torch.zeros(models * self.numbers, device=device))

    def bind(self, state: Tensor) -> None:
        """Make ``state`` ``[numbers]`` or ``[models, numbers]``, float32, the state that is read and written.

        Zeros are that of a beginning.
        """
        self.state = state
        tensors = len(self._parameters) // self._models
        rows = [torch.split(row, self._parts) for row in state.view(self._models, self.numbers)]

        def pick(kind: int) -> Iterator[Tensor]:
            return itertools.chain.from_iterable(row[kind * tensors : (kind + 1) * tensors] for row in rows)

        self._moments = [
            [part.view_as(parameter) for part, parameter in zip(pick(vector), self._parameters, strict=True)]
            for vector in range(self._vectors)
        ]
        self._counters = [counter.view(()) for counter in pick(self._vectors)]

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
