"""A seeded random part of a data set, for quick runs."""

import numpy as np

from flop_p2p.data.dataset import Array, Indices


def draw_subset(labels: Array, limit: int | None, rng: np.random.Generator) -> Indices:
    """Indices of ``limit`` samples, ascending; all of them without a limit or with a higher one.

    Single labels are drawn stratified, so that each class keeps its share to within one sample; multilabel
    samples are drawn plainly at random.
    """
    samples = len(labels)
    if limit is None or limit >= samples:
        return np.arange(samples)
    order = rng.permutation(samples)
    if labels.ndim == 1:
        order = spread_classes(labels, order, rng)
    return np.sort(order[:limit])


def spread_classes(labels: Array, order: Indices, rng: np.random.Generator) -> Indices:
    """``order`` rearranged so that every stretch of it has nearly the same mix of classes.

    The k-th of the n samples of a class in ``order`` goes to a random place in the k-th of n equal parts.
    """
    ordered = labels[order]
    by_class = np.argsort(ordered, kind="stable")
    counts = np.bincount(ordered)
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(order), np.int64)
    rank[by_class] = np.arange(len(order)) - np.repeat(starts, counts)
    place = (rank + rng.uniform(size=len(order))) / counts[ordered]
    return order[np.argsort(place, kind="stable")]
