"""Inversion of gradients: images whose gradient points where an observed one does.

Geiping et al., "Inverting Gradients", NeurIPS 2020, equation 4: minimize 1 - cosine(gradient, observed) plus total
variation, with the sign of the images' gradient in Adam, a learning rate that falls in steps, and pixels kept within
their range.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flop_p2p.audit.gradients import Gradient, GradientModel, Weights, cosine_distance
from flop_p2p.config import AuditSettings, TrainingSettings
from flop_p2p.learning.optimizer import Optimizer
from flop_p2p.seeding import derive_int

IMAGE_RATE = 0.3  # standard deviations of a pixel a step
GUESS_RATE = 0.03  # of a head and of labels that are guessed along
FALLS_AT = (3 / 8, 5 / 8, 7 / 8)  # of the iterations, to a tenth each
ADAM = TrainingSettings(optimizer="adam")


@dataclass(frozen=True)
class Sender:
    """One of those whose gradients the attacker sees the sum of, as the attacker believes it to be.

    weights: at which the gradient was taken.
    share: of its gradient in the sum.
    images: how many are behind its gradient.
    targets: their labels as probabilities ``[images, outputs]``; None has them guessed along.
    offset: its class prior ``[outputs]`` where logits were adjusted.
    """

    weights: Weights
    share: float
    images: int
    targets: Tensor | None
    offset: Tensor | None = None


@dataclass(frozen=True)
class Problem:
    """What an attacker sees, and what it believes.

    observed: a gradient, up to a positive factor.
    names: its parameters.
    guessed: parameters that the attacker adjusts too, beginning from those of the senders.
    """

    observed: Gradient
    names: Sequence[str]
    senders: Sequence[Sender]
    guessed: Sequence[str] = ()


@dataclass(frozen=True)
class PixelRange:
    """The least and the largest value that a pixel can have after normalization, ``[channels, 1, 1]`` each."""

    low: Tensor
    high: Tensor

    def unit(self, images: Tensor) -> Tensor:
        """Normalized images in units of 0 to 1."""
        return (images - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Reconstruction:
    """What an inversion found.

    images: normalized, ``[images of all senders, channels, height, width]``, sender after sender.
    targets: probabilities ``[images, outputs]``, given or guessed.
    distance: 1 less the cosine of its gradient and the observed one.
    """

    images: Tensor
    targets: Tensor
    distance: float


def invert(
    model: GradientModel,
    problem: Problem,
    shape: Sequence[int],
    outputs: int,
    pixels: PixelRange,
    settings: AuditSettings,
    seed: int,
    iterations: int | None = None,
) -> Reconstruction:
    """The best of several inversions from different noise, by the distance that the attacker sees.

    Args:
        shape: of an image, ``(channels, height, width)``.
        iterations: default those of the settings.
    """
    found = []
    for restart in range(settings.inversion_restarts):
        attempt = _Attempt(model, problem, shape, outputs, pixels, derive_int(seed, "inversion", restart))
        found.append(attempt.run(iterations or settings.inversion_iterations, settings.inversion_total_variation))
    return min(found, key=lambda reconstruction: reconstruction.distance)


class _Attempt:
    """One inversion from one draw of noise."""

    def __init__(
        self,
        model: GradientModel,
        problem: Problem,
        shape: Sequence[int],
        outputs: int,
        pixels: PixelRange,
        seed: int,
    ) -> None:
        self._model, self._problem, self._pixels = model, problem, pixels
        device = pixels.low.device
        generator = torch.Generator().manual_seed(seed)
        counts = [sender.images for sender in problem.senders]
        self._images = torch.randn(sum(counts), *shape, generator=generator).to(device).requires_grad_()
        self._counts = counts
        labels = torch.randn(sum(counts), outputs, generator=generator)
        self._labels = labels.to(device).requires_grad_()  # logits of guessed labels
        self._weights = [
            {
                name: tensor.clone().requires_grad_() if name in problem.guessed else tensor
                for name, tensor in sender.weights.items()
            }
            for sender in problem.senders
        ]
        self._guesses = [weights[name] for weights in self._weights for name in problem.guessed]
        if any(sender.targets is None for sender in problem.senders):
            self._guesses.append(self._labels)

    def run(self, iterations: int, variation: float) -> Reconstruction:
        """Reconstruct in so many steps; ``variation`` weighs the total variation of the images against the distance."""
        images, guesses = Optimizer([self._images], ADAM), Optimizer(self._guesses, ADAM)
        for step in range(iterations):
            factor = 0.1 ** sum(step >= part * iterations for part in FALLS_AT)
            loss = self._distance() + variation * total_variation(self._images)
            gradients = torch.autograd.grad(loss, [self._images, *self._guesses])
            self._images.grad = gradients[0].sign()
            for guess, gradient in zip(self._guesses, gradients[1:], strict=True):
                guess.grad = gradient
            images.step(factor * IMAGE_RATE)
            guesses.step(factor * GUESS_RATE)
            with torch.no_grad():
                self._images.copy_(torch.clamp(self._images, self._pixels.low, self._pixels.high))
        distance = float(self._distance().detach())
        return Reconstruction(self._images.detach(), torch.cat(self._targets()).detach(), distance)

    def _targets(self) -> list[Tensor]:
        guessed = torch.split(self._labels.softmax(dim=1), self._counts)
        given = [sender.targets for sender in self._problem.senders]
        return [guess if targets is None else targets for guess, targets in zip(guessed, given, strict=True)]

    def _distance(self) -> Tensor:
        """Of the gradient of these images and the observed one."""
        names = self._problem.names
        total: Gradient = []
        parts = zip(
            self._problem.senders, self._weights, torch.split(self._images, self._counts), self._targets(), strict=True
        )
        for sender, weights, images, targets in parts:
            own = self._model.gradient(weights, names, images, targets, sender.offset)
            scaled = [sender.share * tensor for tensor in own]
            total = [a + b for a, b in zip(total, scaled, strict=True)] if total else scaled
        return cosine_distance(total, self._problem.observed)


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, down and across, summed over both."""
    down = (images[:, :, 1:] - images[:, :, :-1]).abs().mean()
    across = (images[..., 1:] - images[..., :-1]).abs().mean()
    return down + across
