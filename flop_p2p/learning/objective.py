"""What local training minimizes: the loss of a task, class weights, and the prior of logit adjustment."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from flop_p2p.config import TrainingSettings
from flop_p2p.data.dataset import Task
from flop_p2p.learning.samples import Samples

IGNORED = -100  # a class label that PyTorch's cross-entropy leaves out of loss and mean


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
