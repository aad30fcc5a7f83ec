"""Local training of one site: the gradient steps of a round on its own data."""

from collections.abc import Callable, Sequence
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from flop_p2p.config import TrainingSettings, learning_rate_factor
from flop_p2p.data import build_augmentation
from flop_p2p.errors import ConfigError, TrainingError
from flop_p2p.learning.batches import round_batches, steps_of_round
from flop_p2p.learning.device import seed_generators
from flop_p2p.learning.objective import build_objective
from flop_p2p.learning.partway import Partway
from flop_p2p.learning.samples import Samples
from flop_p2p.learning.trainee import Trainee
from flop_p2p.seeding import derive, derive_int

Phase = Literal["joint", "alternating", "head"]
Stretch = tuple[int, Sequence[nn.Parameter], Sequence[nn.Module]]  # steps, frozen parameters, BatchNorm layers


class Learner:
    """Trains a model on one site's data, in place, so that tensors that are views into a body vector stay so.

    Args:
        name: the site; with the seed and the round it decides the order of samples, so that a round can be
            repeated alone.
        indices: the site's training samples, int64 ``[training samples]``.
        steps: gradient steps a round; default as the settings say for so many samples.

    Attributes:
        objective: what it minimizes.
        count: training samples of the site.

    Raises:
        ConfigError: the settings augment images, and the samples are rows of a table.
    """

    def __init__(
        self,
        name: str,
        trainee: Trainee,
        samples: Samples,
        indices: np.ndarray,
        settings: TrainingSettings,
        seed: int,
        steps: int | None = None,
    ) -> None:
        self.name = name
        self.trainee = trainee
        self._samples = samples
        self.count = len(indices)
        self._indices = indices
        positions = samples.positions(indices)
        self._labels = samples.labels[positions].cpu().numpy()
        self.objective = build_objective(samples, positions, settings)
        if settings.augmentation and len(samples.sample_shape) != 3:
            names = ", ".join(settings.augmentation)
            raise ConfigError(f"--augment {names}: augmentation is for images, and the data are a table; leave it out")
        self._augment = build_augmentation(settings.augmentation)
        self._settings = settings
        self._seed = seed
        self.steps = steps or steps_of_round(len(indices), settings)

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
        return cast(float, self.train_partly(round_index, phase, None, lambda: False))

    def train_partly(
        self, round_index: int, phase: Phase, partway: Partway | None, pause: Callable[[], bool]
    ) -> float | Partway:
        """As `train`, but pausing after the gradient step (any but the last) at which ``pause`` says so.

        Going on from the `Partway` that is then returned, with model and optimizer as they were, gives weights
        and loss of a round without pauses, bit for bit.

        Raises:
            TrainingError: as `train`.
        """
        batches = self.batches(round_index)
        self._start_round(round_index, partway)
        lr = self.learning_rate(round_index)
        device = self._samples.inputs.device
        losses = [] if partway is None else list(partway.losses.to(device))
        total, start = torch.zeros((), device=device), 0
        for steps, frozen, norms in self.stretches(phase, round_index, len(batches)):
            with self.trainee.frozen(frozen, norms):
                for positions in batches[max(start, len(losses)) : start + steps]:
                    losses.append(self._step(positions, lr, round_index, len(losses)))
                    if len(losses) < len(batches) and pause():
                        return self._pause(losses)
            total += sum(losses[start : start + steps], torch.zeros((), device=device))
            start += steps
        self.check(round_index, mean := float(total) / len(batches), self.trainee.finite)
        return mean

    def batches(self, round_index: int) -> list[np.ndarray]:
        """The samples of each gradient step of a round, positions in the data set."""
        generator = derive(self._seed, "batches", self.name, round_index)
        return [self._indices[batch] for batch in round_batches(self._labels, self._settings, generator, self.steps)]

    def learning_rate(self, round_index: int) -> float:
        """That of a round, by the schedule."""
        settings = self._settings
        return settings.lr * learning_rate_factor(settings.schedule, round_index, settings.rounds)

    def stretches(self, phase: Phase, round_index: int, steps: int) -> list[Stretch]:
        """The parts of a round: their gradient steps, and the parameters and BatchNorm layers that they leave alone."""
        trainee = self.trainee
        head_only: Stretch = (steps, trainee.body, trainee.shared_norms)
        if phase == "alternating":
            half = (steps + 1 - round_index % 2) // 2
            return [(half, *head_only[1:]), (steps - half, trainee.head, [])]
        return [head_only if phase == "head" else (steps, [], [])]

    def check(self, round_index: int, mean: float, finite: bool) -> None:
        """That a round went well, by its mean loss and whether all weights are finite.

        Raises:
            TrainingError: training diverged.
        """
        if not np.isfinite(mean):
            raise self._error(round_index, f"the loss is {mean}; training diverged, lower --lr")
        if not finite:
            raise self._error(round_index, "weights are NaN or infinite; training diverged, lower --lr")

    def _error(self, round_index: int, reason: str) -> TrainingError:
        return TrainingError(f"site {self.name}, round {round_index + 1}: {reason}")

    def _start_round(self, round_index: int, partway: Partway | None) -> None:
        if partway is None and self._settings.optimizer_state == "reset":
            self.trainee.optimizer.reset()
        self._restore_random(round_index, partway)
        self.trainee.optimizer.clear_gradients()
        self.trainee.model.train()

    def _restore_random(self, round_index: int, partway: Partway | None) -> None:
        """Set torch's global generator, from which dropout and augmentation draw."""
        device = self._samples.inputs.device
        if partway is not None:
            partway.restore_random(device)
        else:
            seed_generators(derive_int(self._seed, "torch", self.name, round_index), device)

    def _pause(self, losses: Sequence[Tensor]) -> Partway:
        """Where to go on after steps with these losses."""
        return Partway.now(losses)

    def _step(self, positions: np.ndarray, lr: float, round_index: int, step: int) -> Tensor:  # noqa: ARG002
        """One gradient step, the ``step``-th of its round, counted from 0; its loss."""
        inputs, labels = self._samples.batch(self._samples.positions(positions), self._augment)
        loss = self.objective.loss(self._logits(inputs), labels)
        if not loss.requires_grad:
            raise frozen_error(self.name)
        loss.backward()  # type: ignore[no-untyped-call]
        self.trainee.optimizer.step(lr)
        self.trainee.optimizer.clear_gradients()
        return loss.detach()

    def _logits(self, inputs: Tensor) -> Tensor:
        try:
            logits: Tensor = self.trainee.model(inputs)
        except ValueError as error:
            if len(inputs) > 1:
                raise
            raise single_sample_error(self.name) from error
        return logits


def frozen_error(name: str) -> TrainingError:
    """Of the site ``name``, where there is nothing to train."""
    return TrainingError(f"site {name}: all weights that this phase would train are frozen")


def single_sample_error(name: str) -> TrainingError:
    """Of the site ``name``, where BatchNorm met a batch of one sample."""
    return TrainingError(
        f"site {name}: BatchNorm cannot train on a batch of one sample; take --batch-size 2 or more, "
        "and leave out sites of one training sample with --min-site-images"
    )
