"""Local training of many small sites at once: one call of torch computes a gradient step of them all.

Where a step is small, most of its time goes into starting operations. `torch.func` turns the operations of one model
into those of many with different weights: one product of stacked matrices instead of one product a site.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from flop_p2p.config import TrainingSettings
from flop_p2p.errors import ConfigError
from flop_p2p.learning.objective import IGNORED, Objective
from flop_p2p.learning.optimizer import Optimizer
from flop_p2p.learning.samples import Samples
from flop_p2p.learning.trainee import Trainee
from flop_p2p.learning.training import Learner, Phase, frozen_error, single_sample_error

Tensors = dict[str, Tensor]
Step = tuple[list[int], list[np.ndarray]]  # sites by their place in the group, and the samples of each


@dataclass(frozen=True)
class Stack:
    """Models of one kind and the states of their optimizers; training changes them in place.

    tensors: parameters and buffers by name, ``[sites, ...]``; those of one site are contiguous.
    optimizer: ``[sites, numbers]``.
    """

    tensors: Tensors
    optimizer: Tensor


class Lockstep:
    """Trains several sites at once, each as its `Learner` would but for rounding.

    Sites may differ in samples and steps. One that has fewer steps sits the last ones out. Shorter batches are filled
    up with samples that the loss ignores, or, where BatchNorm would see these, taken apart from the longer ones.

    Args:
        trainee: the model whose operations are used; its weights are not.

    Raises:
        ConfigError: model or settings do not allow it: what is random (dropout, augmentation), or `torch.func` cannot.
    """

    def __init__(self, trainee: Trainee, samples: Samples, settings: TrainingSettings) -> None:
        if settings.augmentation:
            raise _refusal("augmentation draws random numbers")
        self._trainee, self._samples, self._settings = trainee, samples, settings
        self._parameters = dict(trainee.model.named_parameters())
        normalizes = any(isinstance(layer, _BatchNorm) for layer in trainee.model.modules())
        self._fills_up = not normalizes and samples.task != "multilabel"
        self._used = self._try_out()

    def train(self, learners: Sequence[Learner], stack: Stack, round_index: int, phase: Phase) -> list[float]:
        """Train one round, counted from 0, and return each site's mean loss over its gradient steps.

        Args:
            learners: those of the sites of ``stack``, in its order.

        Raises:
            TrainingError: as `Learner.train`.
        """
        group = _Group(learners, stack, self._trainee.names, self._settings)
        if self._settings.optimizer_state == "reset":
            group.optimizer.reset()
        lr = learners[0].learning_rate(round_index)
        batches = [learner.batches(round_index) for learner in learners]
        plans = [learner.stretches(phase, round_index, len(b)) for learner, b in zip(learners, batches, strict=True)]
        totals = torch.zeros(len(learners), device=stack.optimizer.device)
        self._trainee.model.train()
        done = [0] * len(learners)
        for stretch, (_, frozen, norms) in enumerate(plans[0]):
            ends = [start + plan[stretch][0] for start, plan in zip(done, plans, strict=True)]
            queues = [own[start:end] for own, start, end in zip(batches, done, ends, strict=True)]
            with self._trainee.frozen(frozen, norms):
                for sites, chosen in self._steps(queues):
                    losses = self._gradients(group, sites, chosen)
                    group.optimizer.step(lr)
                    group.optimizer.clear_gradients()
                    totals[sites] += losses
            done = ends
        means = [total / steps for total, steps in zip(totals.tolist(), done, strict=True)]
        for learner, mean, finite in zip(learners, means, group.finite(), strict=True):
            learner.check(round_index, mean, finite)
        return means

    def _steps(self, queues: Sequence[Sequence[np.ndarray]]) -> Iterator[Step]:
        """Gradient steps, each of as many sites as can take it together."""
        for index in range(max(map(len, queues))):
            together: dict[int, list[int]] = defaultdict(list)
            for site, queue in enumerate(queues):
                if index < len(queue):
                    together[0 if self._fills_up else len(queue[index])].append(site)
            for sites in together.values():
                yield sites, [queues[site][index] for site in sites]

    def _gradients(self, group: "_Group", sites: list[int], batches: Sequence[np.ndarray]) -> Tensor:
        """Set the gradients of these sites; their losses ``[len(sites)]``."""
        trained = [name for name in self._trainee.names if name in self._used and self._parameters[name].requires_grad]
        name = group.learners[sites[0]].name
        if not trained:
            raise frozen_error(name)
        tensors, extras = group.choose(sites)
        try:
            gradients, losses = self._differentiate(trained, tensors, extras, *self._load(batches))
        except ValueError as error:
            if len(batches[0]) > 1:
                raise
            raise single_sample_error(name) from error
        group.take(sites, gradients, {name: tensors[name] for name in tensors.keys() - self._parameters.keys()})
        return losses

    def _load(self, batches: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Inputs ``[sites, batch, ...]`` and labels ``[sites, batch, ...]`` of the samples at these positions."""
        lengths = np.array([len(batch) for batch in batches])
        longest = lengths.max()
        positions = np.stack([np.pad(batch, (0, longest - len(batch)), mode="edge") for batch in batches])
        inputs, labels = self._samples.batch(self._samples.positions(positions.reshape(-1)))
        labels = labels.view(*positions.shape, *labels.shape[1:])
        if lengths.min() < longest:
            labels[torch.from_numpy(np.arange(longest) >= lengths[:, None])] = IGNORED
        return inputs.view(*positions.shape, *inputs.shape[1:]), labels

    def _differentiate(
        self, trained: Sequence[str], tensors: Tensors, extras: Tensors, inputs: Tensor, labels: Tensor
    ) -> tuple[Tensors, Tensor]:
        """Gradients of ``trained`` and losses, ``[sites, ...]``; buffers among ``tensors`` change in place."""
        task = self._samples.task

        def loss(chosen: Tensors, others: Tensors, extras: Tensors, inputs: Tensor, labels: Tensor) -> Tensor:
            logits: Tensor = functional_call(self._trainee.model, (chosen, others), (inputs,))
            return Objective(task, extras.get("prior"), extras.get("class_weights")).loss(logits, labels)

        chosen = {name: tensors[name] for name in trained}
        others = {name: tensor for name, tensor in tensors.items() if name not in chosen}
        result: tuple[Tensors, Tensor] = vmap(grad_and_value(loss))(chosen, others, extras, inputs, labels)
        return result

    def _try_out(self) -> set[str]:
        """Take a step of two sites that goes nowhere; returns the names of the parameters that the loss depends on."""
        model = self._trainee.model.train()
        one = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        two = {name: torch.stack([tensor, tensor]) for name, tensor in one.items()}
        inputs, labels = self._load([np.zeros(2, dtype=np.int64)] * 2)
        try:
            self._differentiate(self._trainee.names, two, {}, inputs, labels)
        except Exception as error:
            raise _refusal(next(iter(str(error).strip().splitlines()), type(error).__name__)) from error
        trained = [one[name].requires_grad_() for name in self._trainee.names]
        logits: Tensor = functional_call(model, one, (inputs[0],))
        gradients = torch.autograd.grad(logits.sum(), trained, allow_unused=True)
        return {name for name, found in zip(self._trainee.names, gradients, strict=True) if found is not None}


class _Group:
    """Sites that train together, and one optimizer of all their weights."""

    def __init__(
        self, learners: Sequence[Learner], stack: Stack, names: Sequence[str], settings: TrainingSettings
    ) -> None:
        self.learners = learners
        self._tensors = stack.tensors
        self._weights = {name: stack.tensors[name].unbind() for name in names}
        self.optimizer = Optimizer(
            [self._weights[name][site] for site in range(len(learners)) for name in names], settings, len(learners)
        )
        self.optimizer.bind(stack.optimizer)
        objectives = [learner.objective for learner in learners]
        parts = {
            "prior": [objective.prior for objective in objectives],
            "class_weights": [objective.class_weights for objective in objectives],
        }
        self._extras = {
            name: torch.stack([value for value in values if value is not None])
            for name, values in parts.items()
            if values[0] is not None
        }

    def choose(self, sites: Sequence[int]) -> tuple[Tensors, Tensors]:
        """Model tensors and what the loss depends on, ``[len(sites), ...]``; those of all sites are not copied."""
        if len(sites) == len(self.learners):
            return self._tensors, self._extras
        tensors, extras = (
            {name: tensor[list(sites)] for name, tensor in every.items()} for every in (self._tensors, self._extras)
        )
        return tensors, extras

    def take(self, sites: Sequence[int], gradients: Tensors, buffers: Tensors) -> None:
        """Hand gradients to the optimizer, and write buffers back."""
        for name, gradient in gradients.items():
            for site, own in zip(sites, gradient.contiguous().unbind(), strict=True):
                self._weights[name][site].grad = own
        for name, buffer in buffers.items():
            if buffer is not self._tensors[name]:
                self._tensors[name][list(sites)] = buffer

    def finite(self) -> list[bool]:
        """Of each site: no trainable weight is NaN or infinite."""
        finite = torch.stack([self._tensors[name].flatten(1).isfinite().all(dim=1) for name in self._weights])
        every: list[bool] = finite.all(dim=0).tolist()
        return every


def _refusal(reason: str) -> ConfigError:
    return ConfigError(f"--sites-at-once: these sites cannot train together ({reason}); take --sites-at-once 1")
