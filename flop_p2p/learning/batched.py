"""Local training of many small sites at once: one call of torch computes a gradient step of them all.

Where a step is small, most of its time goes into starting operations. `torch.func` turns the operations of one model
into those of many with different weights: one product of stacked matrices instead of one product a site. As the loss of
a site depends on no weight but its own, the gradients of the sum of all losses are those of each.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from flop_p2p.config import TrainingSettings
from flop_p2p.errors import ConfigError
from flop_p2p.learning.objective import Objectives, stack_objectives
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
        self._parameters = dict(trainee.model.named_parameters())  # of tied weights once
        state = trainee.model.state_dict().keys()
        self._buffers = [name for name, _ in trainee.model.named_buffers() if name in state]
        self._fills_up = not any(isinstance(layer, _BatchNorm) for layer in trainee.model.modules())
        self._try_out()

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
        inputs, labels, counts = self._load(batches)
        tensors = group.choose(sites)
        leaves = {
            name: tensors[name].detach().requires_grad_()
            for name in self._trainee.names
            if self._parameters[name].requires_grad
        }
        name = group.learners[sites[0]].name
        try:
            logits = self._logits(tensors | leaves, inputs)
        except ValueError as error:
            if inputs.shape[1] > 1:
                raise
            raise single_sample_error(name) from error
        losses = group.objectives(sites).losses(logits, labels, counts)
        if not losses.requires_grad:
            raise frozen_error(name)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
        group.set_gradients(sites, dict(zip(leaves, gradients, strict=True)))
        group.write_back(sites, {name: tensors[name] for name in self._buffers})
        return losses.detach()

    def _load(self, batches: Sequence[np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and labels of the samples at these positions, and which count, ``[sites, batch, ...]`` each."""
        longest = max(map(len, batches))
        positions, counts = np.empty((len(batches), longest), np.int64), np.ones((len(batches), longest), np.float32)
        for batch, own, count in zip(batches, positions, counts, strict=True):
            own[: len(batch)] = batch
            own[len(batch) :] = batch[-1]
            count[len(batch) :] = 0
        inputs, labels = self._samples.batch(self._samples.positions(positions.reshape(-1)))
        shape = positions.shape
        return (
            inputs.view(*shape, *inputs.shape[1:]),
            labels.view(*shape, *labels.shape[1:]),
            torch.from_numpy(counts).to(inputs.device),
        )

    def _logits(self, tensors: Tensors, inputs: Tensor) -> Tensor:
        """Logits ``[sites, batch, outputs]``; buffers among ``tensors`` change in place."""

        def forward(tensors: Tensors, inputs: Tensor) -> Tensor:
            logits: Tensor = functional_call(self._trainee.model, tensors, (inputs,))
            return logits

        logits: Tensor = vmap(forward)(tensors, inputs)
        return logits

    def _try_out(self) -> None:
        """A forward pass of two sites that goes nowhere."""
        model = self._trainee.model.train()
        state = model.state_dict()
        tensors = {name: torch.stack([state[name], state[name]]) for name in [*self._parameters, *self._buffers]}
        inputs, _, _ = self._load([np.zeros(2, dtype=np.int64)] * 2)
        try:
            self._logits(tensors, inputs)
        except Exception as error:
            raise _refusal(next(iter(str(error).strip().splitlines()), type(error).__name__)) from error


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
        self._objectives = [learner.objective for learner in learners]

    def choose(self, sites: Sequence[int]) -> Tensors:
        """Model tensors ``[len(sites), ...]``, a copy unless they are those of all sites."""
        if len(sites) == len(self.learners):
            return self._tensors
        return {name: tensor[list(sites)] for name, tensor in self._tensors.items()}

    def objectives(self, sites: Sequence[int]) -> Objectives:
        """Those of these sites."""
        return stack_objectives([self._objectives[site] for site in sites])

    def set_gradients(self, sites: Sequence[int], gradients: Mapping[str, Tensor | None]) -> None:
        """Hand gradients ``[len(sites), ...]`` to the optimizer; None for a weight that the loss does not depend on."""
        for name, gradient in gradients.items():
            if gradient is not None:
                for site, own in zip(sites, gradient.contiguous(), strict=True):
                    self._weights[name][site].grad = own

    def write_back(self, sites: Sequence[int], tensors: Tensors) -> None:
        """Keep what changed in copies that `choose` gave."""
        if len(sites) < len(self.learners):
            for name, tensor in tensors.items():
                self._tensors[name][list(sites)] = tensor

    def finite(self) -> list[bool]:
        """Of each site: no trainable weight is NaN or infinite."""
        finite = torch.stack([self._tensors[name].flatten(1).isfinite().all(dim=1) for name in self._weights])
        every: list[bool] = finite.all(dim=0).tolist()
        return every


def _refusal(reason: str) -> ConfigError:
    return ConfigError(f"--sites-at-once: these sites cannot train together ({reason}); take --sites-at-once 1")
