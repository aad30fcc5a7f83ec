"""What local training minimizes: the loss of a task, class weights, and the prior of logit adjustment."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from flop_p2p.config import TrainingSettings
from flop_p2p.data.dataset import Task
from flop_p2p.learning.samples import Samples


@dataclass(frozen=True)
class Objective:
    """The loss of one site.

    prior: offset ``[outputs]`` to the logits in training, or None for the plain loss.
    class_weights: ``[outputs]``, or None.
    """

    task: Task
    prior: Tensor | None
    class_weights: Tensor | None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch: cross-entropy, or the binary one over all labels for ``multilabel``."""
        if self.prior is not None:
            logits = logits + self.prior
        if self.task == "multilabel":
            return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=self.class_weights)
        return F.cross_entropy(logits, labels, weight=self.class_weights)


@dataclass(frozen=True)
class Objectives:
    """The losses of several sites, each that of its `Objective`; prior and class weights are ``[sites, outputs]``."""

    task: Task
    prior: Tensor | None
    class_weights: Tensor | None

    def losses(self, logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        """Mean loss of each site's batch, ``[sites]``.

        Args:
            logits: ``[sites, batch, outputs]``.
            labels: ``[sites, batch]``, or ``[sites, batch, outputs]`` for ``multilabel``.
            counts: ones, and zeros for samples to be left out, float32 ``[sites, batch]``.
        """
        if self.prior is not None:
            logits = logits + self.prior[:, None]
        if self.task == "multilabel":
            weights = None if self.class_weights is None else self.class_weights[:, None]
            each = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="none").mean(dim=2)
        else:
            each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
            if self.class_weights is not None:
                counts = counts * self.class_weights.gather(1, labels)
        return (each * counts).sum(dim=1) / counts.sum(dim=1)


def stack_objectives(objectives: Sequence[Objective]) -> Objectives:
    """The objectives of sites with the same settings as one."""
    priors = [objective.prior for objective in objectives if objective.prior is not None]
    weights = [objective.class_weights for objective in objectives if objective.class_weights is not None]
    return Objectives(
        objectives[0].task, torch.stack(priors) if priors else None, torch.stack(weights) if weights else None
    )


def build_objective(samples: Samples, indices: Tensor, settings: TrainingSettings) -> Objective:
    """The objective of the site whose training samples are at ``indices``, int64 ``[training samples]``."""
    labels = samples.labels[indices]
    prior = log_prior(labels, samples) if settings.head_loss == "logit-adjusted" else None
    weights = balanced_class_weights(labels, samples) if settings.class_weights == "balanced" else None
    return Objective(samples.task, prior, weights)


def log_prior(labels: Tensor, samples: Samples) -> Tensor:
    """The class prior of ``labels`` as an offset ``[outputs]`` to logits (Menon et al. 2021, equation 10).

    Counts are smoothed by one sample a class, so that a class that the site has never seen keeps a finite
    offset. For ``multilabel`` it is the log odds of each label.
    """
    if samples.task == "multilabel":
        positive = labels.sum(dim=0) + 1
        return torch.log(positive / (len(labels) + 2 - positive))
    counts = torch.bincount(labels, minlength=samples.outputs).float() + 1
    return torch.log(counts / counts.sum())


def balanced_class_weights(labels: Tensor, samples: Samples) -> Tensor:
    """Weights ``[outputs]`` inverse to class frequency; the mean weight of a sample is one.

    For ``multilabel`` the weight of a label's positives: negatives per positive. Absent classes weigh nothing.
    """
    if samples.task == "multilabel":
        positive = labels.sum(dim=0)
        return (len(labels) - positive) / positive.clamp(min=1)
    counts = torch.bincount(labels, minlength=samples.outputs).float()
    weights = len(labels) / ((counts > 0).sum() * counts.clamp(min=1))
    return torch.where(counts > 0, weights, torch.zeros_like(weights))
