"""Recovery of labels tried on many images of all sites, beside the guess of the site's most frequent class."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from flop_p2p.audit.exposures import with_head
from flop_p2p.audit.federation import Federation, Victim
from flop_p2p.audit.gradients import Gradient, Weights
from flop_p2p.audit.intervals import mean_interval, rate_interval, verdict
from flop_p2p.audit.inversion import PixelRange, Problem, Sender, invert
from flop_p2p.audit.inversion_trials import Progress, drawn_training
from flop_p2p.audit.labels import fitted_head, label_of_single, labels_of_batch, nearest_labels, overlap
from flop_p2p.config import ExperimentSettings
from flop_p2p.seeding import derive_int

MOST_FITTED = 1000  # training samples of the attacker that a head is fitted to

KNOWS = {
    "iDLG": "full sharing: the gradient of the head",
    "counts from biases": "full sharing: the gradient of the head; takes the mean prediction on its own images",
    "known head": "the gradient of the body, and the head: the worst case",
    "surrogate head, its own": "the gradient of the body; takes its own head for the site's",
    "surrogate head, fitted": "the gradient of the body; fits a head to its own data on that body",
    "dummy head": "the gradient of the body; adjusts its own head, image and label until the gradient matches",
}


@dataclass
class Tally:
    """Hits of one attack, and how many of them the majority guess would have on average."""

    values: list[float] = field(default_factory=list)
    majority: list[float] = field(default_factory=list)


def recover_all(federation: Federation, settings: ExperimentSettings, progress: Progress) -> list[dict[str, Any]]:
    """Rows of all recoveries of labels before the current round, of single images and of batches.

    Raises:
        ConfigError: BatchNorm does not take a single image.
    """
    singles: dict[str, Tally] = {}
    each = -(-settings.audit.label_images // federation.sites)
    text = f"round {federation.round}, labels of single images"
    for row in range(federation.sites):
        progress(text, row, federation.sites)
        _recover_singles(federation, settings, row, each, singles)
    rows = [_row(federation.round, 1, name, tally) for name, tally in singles.items()]
    layer = federation.model.output_layer()
    for batch in settings.audit.inversion_batches:
        if batch > 1 and layer is not None and f"{layer}.bias" in federation.model.head:
            tally = _recover_batches(federation, settings, batch, f"{layer}.bias")
            if tally.values:
                rows.append(_row(federation.round, batch, "counts from biases", tally))
    return rows


def _recover_singles(
    federation: Federation, settings: ExperimentSettings, row: int, images: int, tallies: dict[str, Tally]
) -> None:
    """All attacks on single images of one site."""
    model, victim = federation.model, federation.victim(row)
    positions = drawn_training(federation, settings.seed, row)[:images].tolist()
    labels = federation.batch(positions)[1].tolist()
    gradients = [federation.step(row, [position]) for position in positions]
    bodies = [gradient[: len(model.body)] for gradient in gradients]
    found: dict[str, list[int]] = {}
    if (layer := model.output_layer()) is not None:
        named = [dict(zip(model.names, gradient, strict=True)) for gradient in gradients]
        found["iDLG"] = [label_of_single(gradient, layer) for gradient in named]
    for name, (weights, owner) in _stand_ins(federation, settings, victim).items():
        found[name] = _nearest(federation, settings, victim, weights, owner, bodies)
    if federation.pixels is not None:
        found["dummy head"] = [
            _dummy_label(federation, settings, federation.pixels, victim, body, position)
            for body, position in zip(bodies, positions, strict=True)
        ]
    share = _majority(federation, row)
    for name, guesses in found.items():
        tally = tallies.setdefault(name, Tally())
        tally.values += [float(guess == label) for guess, label in zip(guesses, labels, strict=True)]
        tally.majority += [share] * len(labels)


def _stand_ins(federation: Federation, settings: ExperimentSettings, victim: Victim) -> dict[str, tuple[Weights, int]]:
    """The victim's body with a head that the attacker has, and the site whose class prior goes with it."""
    body, own = federation.before(victim.row), federation.before(victim.attacker)
    data = drawn_training(federation, settings.seed, victim.attacker)[:MOST_FITTED].tolist()
    names = federation.model.head
    return {
        "known head": (body, victim.row),
        "surrogate head, its own": (with_head(body, own, names), victim.attacker),
        "surrogate head, fitted": (fitted_head(federation, body, own, data), victim.attacker),
    }


def _nearest(
    federation: Federation,
    settings: ExperimentSettings,
    victim: Victim,
    weights: Weights,
    owner: int,
    bodies: Sequence[Gradient],
) -> list[int]:
    images = drawn_training(federation, settings.seed, victim.attacker)[: settings.audit.label_others].tolist()
    inputs, _ = federation.batch(images)
    outputs, prior = federation.samples.outputs, federation.objective(owner).prior
    return nearest_labels(federation.model, weights, inputs, outputs, prior, bodies)


def _dummy_label(
    federation: Federation,
    settings: ExperimentSettings,
    pixels: PixelRange,
    victim: Victim,
    body: Gradient,
    position: int,
) -> int:
    """The label that goes with the image and head whose gradient matches, beginning from the attacker's own head."""
    samples, model = federation.samples, federation.model
    weights = with_head(federation.before(victim.row), federation.before(victim.attacker), model.head)
    sender = Sender(weights, 1.0, 1, None, federation.objective(victim.attacker).prior)
    seed = derive_int(settings.seed, "audit-labels", federation.round, position)
    problem = Problem(body, model.body, [sender], model.head)
    audit, shape = settings.audit, samples.sample_shape
    found = invert(model, problem, shape, samples.outputs, pixels, audit, seed, audit.label_iterations)
    return int(found.targets[0].argmax())


def _recover_batches(federation: Federation, settings: ExperimentSettings, batch: int, bias: str) -> Tally:
    """The part of the labels of whole batches that is recovered, a batch a site."""
    model, tally = federation.model, Tally()
    place = model.names.index(bias)
    for row in range(federation.sites):
        positions = drawn_training(federation, settings.seed, row)[:batch].tolist()
        if len(positions) < batch:
            continue
        gradient = federation.step(row, positions)[place]
        victim = federation.victim(row)
        own, _ = federation.batch(drawn_training(federation, settings.seed, victim.attacker)[:MOST_FITTED].tolist())
        with torch.no_grad():
            probabilities = model.logits(federation.before(row), own).softmax(dim=1).mean(dim=0)
        counts = labels_of_batch(gradient, probabilities, batch)
        tally.values.append(overlap(counts, federation.batch(positions)[1].tolist()))
        tally.majority.append(_majority(federation, row))
    return tally


def _majority(federation: Federation, row: int) -> float:
    """The share of the most frequent class among the training samples of a site."""
    labels = federation.batch(federation.training(row).tolist())[1].cpu().numpy()
    return float(np.bincount(labels).max() / len(labels))


def _row(round_index: int, batch: int, name: str, tally: Tally) -> dict[str, Any]:
    chance = mean_interval(tally.majority)["mean"]
    values = tally.values
    rate = rate_interval(int(sum(values)), len(values)) if batch == 1 else mean_interval(values)
    return {
        "attack": "labels",
        "round": round_index,
        "batch": batch,
        "method": name,
        "knows": KNOWS[name],
        "rate": rate,
        "majority": chance,
        "verdict": verdict(rate, chance),
    }
