"""Local training of one site: the gradient steps of a round on its own data."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from flop_p2p.config import TrainingSettings, learning_rate_factor
from flop_p2p.data import build_augmentation
from flop_p2p.errors import TrainingError
from flop_p2p.learning.batches import round_batches, steps_of_round
from flop_p2p.learning.objective import build_objective
from flop_p2p.learning.samples import Samples
from flop_p2p.seeding import derive, derive_int

Phase = Literal["joint", "alternating", "head"]


class Learner:
    """Trains one site's model in place, so that tensors that are views into a body vector stay so.

    Args:
        name: the site; with the seed and the round it decides the order of samples, so that a round can be
            repeated alone.
        head: names of the model's private parameters.
        indices: the site's training samples, int64 ``[training samples]``.
        steps: gradient steps a round; default as the settings say for so many samples.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        head: Collection[str],
        samples: Samples,
        indices: np.ndarray,
        settings: TrainingSettings,
        seed: int,
        steps: int | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.optimizer = _optimizer(model, settings)
        trained = {key: tensor for key, tensor in model.named_parameters() if tensor.requires_grad}
        self._body = [tensor for key, tensor in trained.items() if key not in head]
        self._head = [tensor for key, tensor in trained.items() if key in head]
        self._shared_norms = [
            layer
            for key, layer in model.named_modules()
            if isinstance(layer, _BatchNorm) and f"{key}.running_mean" not in head
        ]
        self._samples = samples
        self._indices = samples.positions(indices)
        self._labels = samples.labels[self._indices].cpu().numpy()
        self._objective = build_objective(samples, self._indices, settings)
        self._augment = build_augmentation(settings.augmentation)
        self._settings = settings
        self._seed = seed
        self._steps_of_round = steps or steps_of_round(len(indices), settings)

    def train(self, round_index: int, phase: Phase = "joint") -> float:
        """Train one round, counted from 0, and return the mean loss over its gradient steps.

        ``joint`` trains body and head together (FLOP, FedPer), ``head`` the head alone; ``alternating`` takes
        the first half of the steps for the head and the second for the body (FedRep, DFedAlt), so that every
        phase takes the same number of gradient steps; an odd step goes to the head in the first round, to the
        body in the next, and so on. While the body is frozen its BatchNorm statistics are, too.

        Raises:
            TrainingError: loss or weights are no longer finite, the phase has nothing to train, or BatchNorm met
                a batch of one sample.
        """
        generator = derive(self._seed, "batches", self.name, round_index)
        batches = round_batches(self._labels, self._settings, generator, self._steps_of_round)
        self._start_round(round_index)
        if phase == "alternating":
            half = (len(batches) + 1 - round_index % 2) // 2
            with _frozen(self._body, self._shared_norms):
                total = self._steps(batches[:half])
            with _frozen(self._head):
                total += self._steps(batches[half:])
        elif phase == "head":
            with _frozen(self._body, self._shared_norms):
                total = self._steps(batches)
        else:
            total = self._steps(batches)
        mean = float(total) / len(batches)
        if not np.isfinite(mean):
            raise self._error(round_index, f"the loss is {mean}; training diverged, lower --lr")
        if not all(bool(tensor.isfinite().all()) for tensor in self._body + self._head):
            raise self._error(round_index, "weights are NaN or infinite; training diverged, lower --lr")
        return mean

    def _error(self, round_index: int, reason: str) -> TrainingError:
        return TrainingError(f"site {self.name}, round {round_index + 1}: {reason}")

    def _start_round(self, round_index: int) -> None:
        settings = self._settings
        if settings.optimizer_state == "reset":
            self.optimizer.state.clear()
        factor = learning_rate_factor(settings.schedule, round_index, settings.rounds)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * factor
        # Dropout and augmentation draw from torch's global generator.
        torch.manual_seed(derive_int(self._seed, "torch", self.name, round_index))
        self.model.train()

    def _steps(self, batches: list[np.ndarray]) -> Tensor:
        total = torch.zeros((), device=self._samples.inputs.device)
        for positions in batches:
            inputs, labels = self._samples.batch(self._indices[torch.from_numpy(positions)], self._augment)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._objective.loss(self._logits(inputs), labels)
            if not loss.requires_grad:
                raise TrainingError(f"site {self.name}: all weights that this phase would train are frozen")
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.detach()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _logits(self, inputs: Tensor) -> Tensor:
        try:
            logits: Tensor = self.model(inputs)
        except ValueError as error:
            if len(inputs) > 1:
                raise
            raise TrainingError(
                f"site {self.name}: BatchNorm cannot train on a batch of one sample; take --batch-size 2 or more, "
                "and leave out sites of one training sample with --min-site-images"
            ) from error
        return logits


@contextmanager
def _frozen(parameters: Sequence[nn.Parameter], norms: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Leave these parameters, and the running statistics of these BatchNorm layers, as they are."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for norm in norms:
            norm.train()


def _optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    parameters = model.parameters()
    decay = settings.weight_decay
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(
                parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=decay, fused=True
            )
        case "adam":
            return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=decay, fused=True)
