"""Which samples make up the gradient steps of a round."""

import numpy as np

from flop_p2p.config import TrainingSettings


def steps_of_round(samples: int, settings: TrainingSettings) -> int:
    """Gradient steps that a site with so many training samples takes in a round."""
    return settings.local_steps or settings.local_epochs * len(_starts(samples, settings))


def round_batches(
    labels: np.ndarray, settings: TrainingSettings, generator: np.random.Generator, steps: int
) -> list[np.ndarray]:
    """Positions into a site's training samples, one int64 array for each of ``steps`` gradient steps.

    Args:
        labels: training labels of the site, ``[samples]`` or ``[samples, labels]``.
    """
    batches: list[np.ndarray] = []
    while len(batches) < steps:
        batches += _epoch(labels, settings, generator)
    return batches[:steps]


def _starts(samples: int, settings: TrainingSettings) -> list[int]:
    """Where the batches of an epoch begin."""
    starts = list(range(0, samples, settings.batch_size))
    if len(starts) > 1 and samples - starts[-1] == 1:
        starts.pop()  # BatchNorm cannot normalize a batch of one: it joins the batch before
    return starts


def _epoch(labels: np.ndarray, settings: TrainingSettings, generator: np.random.Generator) -> list[np.ndarray]:
    order = _balanced(labels, generator) if settings.sampling == "balanced" else generator.permutation(len(labels))
    return np.split(order, _starts(len(order), settings)[1:])


def _balanced(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """As many samples as there are, drawn with replacement so that every class comes equally often."""
    groups = labels if labels.ndim == 1 else labels.argmax(axis=1) + labels.any(axis=1)
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    chances = 1 / (len(counts) * counts[group])
    return generator.choice(len(labels), size=len(labels), p=chances)
