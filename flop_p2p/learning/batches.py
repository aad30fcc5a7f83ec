"""Which samples make up the gradient steps of a round."""

import numpy as np

from flop_p2p.config import TrainingSettings


def round_batches(
    labels: np.ndarray, settings: TrainingSettings, generator: np.random.Generator, sites: int = 1
) -> list[np.ndarray]:
    """Positions into a site's training samples, one int64 array a gradient step.

    Args:
        labels: training labels of the site, ``[samples]`` or ``[samples, labels]``.
        sites: of how many sites these data are; with ``local_steps`` pooled training takes the steps of all.
    """
    if settings.local_steps is None:
        epochs = (_epoch(labels, settings, generator) for _ in range(settings.local_epochs))
        return [batch for epoch in epochs for batch in epoch]
    batches: list[np.ndarray] = []
    while len(batches) < settings.local_steps * sites:
        batches += _epoch(labels, settings, generator)
    return batches[: settings.local_steps * sites]


def _epoch(labels: np.ndarray, settings: TrainingSettings, generator: np.random.Generator) -> list[np.ndarray]:
    order = _balanced(labels, generator) if settings.sampling == "balanced" else generator.permutation(len(labels))
    starts = list(range(0, len(order), settings.batch_size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()  # BatchNorm cannot normalize a batch of one: it joins the batch before
    return np.split(order, starts[1:])


def _balanced(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """As many samples as there are, drawn with replacement so that every class comes equally often."""
    groups = labels if labels.ndim == 1 else labels.argmax(axis=1) + labels.any(axis=1)
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    chances = 1 / (len(counts) * counts[group])
    return generator.choice(len(labels), size=len(labels), p=chances)
