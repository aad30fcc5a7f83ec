"""Recovery of labels from gradients: from the head's own gradient, and without it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from flop_p2p.audit.federation import Federation
from flop_p2p.audit.gradients import Gradient, GradientModel, Weights, cosine_distance
from flop_p2p.config import TrainingSettings
from flop_p2p.learning.optimizer import Optimizer

FIT_STEPS, FIT_RATE = 100, 0.05
ADAM = TrainingSettings(optimizer="adam")


def label_of_single(gradient: Mapping[str, Tensor], layer: str) -> int:
    """The label of a single image, from the gradient of the output layer (iDLG, Zhao et al. 2020, section 3).

    The gradient by the logits is the probability less one for the true class, and the probability for every other:
    negative for the true class alone. It is that of the biases; without biases the row of weights is told from the
    others by its sign, for the features that multiply it are not negative after a ReLU.
    """
    bias = gradient.get(f"{layer}.bias")
    rows = gradient[f"{layer}.weight"].flatten(1).sum(dim=1) if bias is None else bias
    return int(rows.argmin())


def labels_of_batch(bias_gradient: Tensor, probabilities: Tensor, images: int) -> list[int]:
    """How many images of a batch have each class, from the gradient ``[outputs]`` by the output layer's biases.

    It is the mean probability less the fraction of the class. The attacker does not know the probabilities of these
    images and takes the mean ``[outputs]`` over images of its own; what comes out is rounded to whole images.
    """
    exact = (images * (probabilities - bias_gradient)).clamp(min=0)
    exact = exact * images / exact.sum().clamp(min=1e-12)
    counts = exact.floor()
    for place in (exact - counts).argsort(descending=True)[: images - int(counts.sum())]:
        counts[place] += 1
    return [int(count) for count in counts]


def overlap(counts: Sequence[int], labels: Sequence[int]) -> float:
    """The part of a batch whose labels are among those of ``counts``."""
    found = sum(min(count, list(labels).count(label)) for label, count in enumerate(counts))
    return found / len(labels)


def nearest_labels(
    model: GradientModel,
    weights: Weights,
    inputs: Tensor,
    outputs: int,
    offset: Tensor | None,
    observed: Sequence[Gradient],
) -> list[int]:
    """For each observed body gradient the label under which an image of the attacker's own gives the nearest one.

    Args:
        weights: the body that the gradients were taken at, with a head that stands in for the private one.
        inputs: the attacker's images ``[n, ...]``; each is tried under every label.
    """
    nearest, labels = torch.full((len(observed),), torch.inf), [0] * len(observed)
    for image in inputs:
        for label in range(outputs):
            target = F.one_hot(torch.tensor([label], device=inputs.device), outputs).float()
            gradient = [tensor.detach() for tensor in model.gradient(weights, model.body, image[None], target, offset)]
            distances = torch.stack([cosine_distance(gradient, other) for other in observed]).cpu()
            for place in (distances < nearest).nonzero().flatten().tolist():
                nearest[place], labels[place] = distances[place], label
    return labels


def fitted_head(federation: Federation, body: Weights, head: Weights, positions: Sequence[int]) -> Weights:
    """``body`` with a head fitted to the attacker's samples at ``positions``, beginning from ``head``."""
    model = federation.model
    inputs, labels = federation.batch(positions)
    targets = federation.targets(labels)
    guess = {name: head[name].clone().requires_grad_() for name in model.head}
    optimizer = Optimizer(list(guess.values()), ADAM)
    for _ in range(FIT_STEPS):
        logits = model.logits({**body, **guess}, inputs)
        loss = F.cross_entropy(logits, targets)
        for tensor, gradient in zip(guess.values(), torch.autograd.grad(loss, list(guess.values())), strict=True):
            tensor.grad = gradient
        optimizer.step(FIT_RATE)
    return {**body, **{name: tensor.detach() for name, tensor in guess.items()}}
