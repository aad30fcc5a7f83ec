"""What an attacker sees and knows under each kind of sharing and each protection, and what it has to guess."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flop_p2p.audit.federation import Federation, Victim
from flop_p2p.audit.gradients import Gradient, Weights, sum_of
from flop_p2p.audit.inversion import Problem, Sender
from flop_p2p.audit.labels import nearest_labels

LEAST_MASKED = 2  # senders; a sum of one is no sum


@dataclass(frozen=True)
class Exposure:
    """One way to be attacked.

    knows: what the attacker has, in words.
    originals: positions of the images that a reconstruction may show.
    """

    name: str
    knows: str
    problem: Problem
    originals: Sequence[int]


@dataclass(frozen=True)
class Noise:
    """Of DP-SGD (Abadi et al. 2016, algorithm 1): gradients clipped to a norm, and noise in multiples of it."""

    multiplier: float
    clipping_norm: float


def of_one_step(
    federation: Federation, victim: Victim, batches: Sequence[Sequence[int]], noise: Noise, others: Sequence[int]
) -> list[Exposure]:
    """Of one gradient step on a batch.

    Args:
        batches: positions of the images of every sender to the attacker, the victim's first.
        others: positions of images of the attacker's own.
    """
    model, row, own = federation.model, victim.row, batches[0]
    before, guess = federation.before(row), federation.before(victim.attacker)
    step = federation.step(row, own)
    body = step[: len(model.body)]
    known = _sender(federation, row, own)
    prior = federation.objective(victim.attacker).prior
    stand_in = with_head(before, guess, model.head)
    labels = _nearest(federation, stand_in, prior, others, body) if len(own) == 1 else None
    surrogate = Sender(stand_in, 1.0, len(own), labels, prior)
    dummy = Sender(with_head(before, _drawn(guess, own[0]), model.head), 1.0, len(own), None, prior)
    exposures = [
        Exposure(
            "full sharing",
            "the gradient of body and head, all weights before the step, the labels",
            Problem(step, model.names, [known]),
            own,
        ),
        Exposure(
            "body, known head",
            "the gradient of the body, all weights before the step with the head, the labels: the worst case",
            Problem(body, model.body, [known]),
            own,
        ),
        Exposure(
            "body, surrogate head",
            "the gradient of the body, the body before the step; begins with its own head and adjusts it; takes the "
            "label under which an image of its own gives the nearest gradient, and guesses those of batches",
            Problem(body, model.body, [surrogate], model.head),
            own,
        ),
        Exposure(
            "body, dummy head",
            "the gradient of the body, the body before the step; guesses head and labels",
            Problem(body, model.body, [dummy], model.head),
            own,
        ),
    ]
    if len(batches) >= LEAST_MASKED:
        exposures.append(_masked_step(federation, victim, batches))
    if not model.has_batch_norm:
        noised = _noised(federation, row, own, noise)[: len(model.body)]
        told = f"noise multiplier {noise.multiplier:g}, clipping norm {noise.clipping_norm:g}"
        knows = f"as body, known head, but every image's gradient is clipped and noise added to the sum ({told})"
        exposures.append(Exposure("body, known head, noise", knows, Problem(noised, model.body, [known]), own))
    return exposures


def _nearest(
    federation: Federation, weights: Weights, prior: Tensor | None, others: Sequence[int], body: Gradient
) -> Tensor | None:
    """The label of a single image as a probability ``[1, outputs]``; None where samples have several labels."""
    if federation.samples.task == "multilabel":
        return None
    inputs, outputs = federation.batch(others)[0], federation.samples.outputs
    (label,) = nearest_labels(federation.model, weights, inputs, outputs, prior, [body])
    return federation.targets(torch.tensor([label], device=inputs.device))


def _masked_step(federation: Federation, victim: Victim, batches: Sequence[Sequence[int]]) -> Exposure:
    model = federation.model
    senders, sums = [], []
    for (row, weight), positions in zip(victim.senders, batches, strict=True):
        senders.append(_sender(federation, row, positions, weight))
        sums.append([weight * tensor for tensor in federation.step(row, positions)[: len(model.body)]])
    return Exposure(
        f"masked, k = {len(batches)}",
        f"the weighted sum of the body gradients of {len(batches)} senders and no single one; the weights before the "
        "step and the labels of all of them: the worst case",
        Problem(_summed(sums), model.body, senders),
        [position for positions in batches for position in positions],
    )


def of_message(federation: Federation, victim: Victim, images: int) -> list[Exposure]:
    """Of what the site sends in this round, after all its own steps: its change, taken for a gradient.

    Args:
        images: how many the attacker tries to find behind it; of other senders at most as many as they have.
    """
    model, row = federation.model, victim.row
    before, guess = federation.before(row), federation.before(victim.attacker)
    originals = federation.training(row).tolist()
    change = _change(before, federation.after(row), model.names)
    body = change[: len(model.body)]
    offset = federation.objective(row).prior
    known = Sender(before, 1.0, images, None, offset)
    drawn = with_head(before, _drawn(guess, row), model.head)
    dummy = Sender(drawn, 1.0, images, None, federation.objective(victim.attacker).prior)
    exposures = [
        Exposure(
            "full sharing",
            "body and head before and after the round",
            Problem(change, model.names, [known]),
            originals,
        ),
        Exposure(
            "body, known head",
            "the body before and after the round, the head before it",
            Problem(body, model.body, [known]),
            originals,
        ),
        Exposure(
            "body, dummy head",
            "the body before and after the round; guesses the head",
            Problem(body, model.body, [dummy], model.head),
            originals,
        ),
    ]
    if any(not torch.equal(before[name], guess[name]) for name in model.body):
        start = with_head(guess, before, model.head)
        exposures.append(
            Exposure(
                "body, known head, start unknown",
                "the body after the round and the head before it; takes its own body for the one before",
                Problem(
                    _change(guess, federation.after(row), model.body),
                    model.body,
                    [Sender(start, 1.0, images, None, offset)],
                ),
                originals,
            )
        )
    if len(victim.senders) >= LEAST_MASKED:
        exposures.append(_masked_message(federation, victim, images))
    return exposures


def _masked_message(federation: Federation, victim: Victim, images: int) -> Exposure:
    model = federation.model
    senders, sums, originals = [], [], []
    for row, weight in victim.senders:
        before, training = federation.before(row), federation.training(row).tolist()
        senders.append(Sender(before, weight, min(images, len(training)), None, federation.objective(row).prior))
        sums.append([weight * part for part in _change(before, federation.after(row), model.body)])
        originals += training
    return Exposure(
        f"masked, k = {len(senders)}",
        f"the weighted sum of the bodies of {len(senders)} senders after the round and no single one; all their bodies "
        "and heads before it",
        Problem(_summed(sums), model.body, senders),
        originals,
    )


def _sender(federation: Federation, row: int, positions: Sequence[int], share: float = 1.0) -> Sender:
    """A site of which the attacker knows everything but its images."""
    targets = federation.targets(federation.batch(positions)[1])
    return Sender(federation.before(row), share, len(positions), targets, federation.objective(row).prior)


def with_head(body: Weights, head: Weights, names: Sequence[str]) -> Weights:
    """The body of one and the head of another."""
    return {**body, **{name: head[name] for name in names}}


def _drawn(weights: Weights, seed: int) -> Weights:
    """Noise of the size of ``weights``: what somebody begins from who knows nothing of them."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator).to(tensor) * tensor.square().mean().sqrt()
        for name, tensor in weights.items()
    }


def _change(before: Weights, after: Weights, names: Sequence[str]) -> Gradient:
    return [before[name] - after[name] for name in names]


def _summed(gradients: Sequence[Gradient]) -> Gradient:
    return [torch.stack(parts).sum(dim=0) for parts in zip(*gradients, strict=True)]


def _noised(federation: Federation, row: int, positions: Sequence[int], noise: Noise) -> Gradient:
    """The gradient of a step of DP-SGD, body and head clipped together, before its division by the batch."""
    clipped = []
    for position in positions:
        gradient = federation.step(row, [position])
        norm = sum_of(tensor.square() for tensor in gradient).sqrt()
        factor = (noise.clipping_norm / norm.clamp(min=1e-12)).clamp(max=1.0)
        clipped.append([factor * tensor for tensor in gradient])
    generator = torch.Generator().manual_seed(int(positions[0]))
    scale = noise.multiplier * noise.clipping_norm

    def draw(tensor: Tensor) -> Tensor:
        return scale * torch.randn(tensor.shape, generator=generator).to(tensor)

    return [tensor + draw(tensor) for tensor in _summed(clipped)]
