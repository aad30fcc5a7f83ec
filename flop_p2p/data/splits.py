"""The fixed training, validation and test split of one site."""

import numpy as np

from flop_p2p.data.dataset import Array, Dataset, Indices, membership

TRAIN, VALIDATION, TEST = range(3)
FREE = -1


def split_site(
    dataset: Dataset,
    indices: Indices,
    fractions: tuple[float, float, float],
    rng: np.random.Generator,
    fixed: dict[str, int] | None = None,
) -> tuple[Indices, Indices, Indices]:
    """Training, validation and test indices of the site that holds ``indices``, each ascending.

    Groups (the samples of one patient, or else single samples) are dealt out whole, the largest first and
    equal ones in random order. Each goes to the split that lacks most of the group's classes; class sizes and the
    size of the whole count alike, so fractions are met to about one group a class. The last groups of the site
    are kept for training and test if these have none yet, and the last of a class for training: what is tested
    was also trained on. A class of two or three samples may be missing from the test split, where its one
    sample would weigh as much in balanced accuracy as a class of hundreds. A fraction of 0 gives an empty split.

    ``fixed`` holds the split of patients already dealt out at another site; this one's are added to it, so that
    no patient is in two splits even if two sites have seen them.
    """
    names = None if dataset.patients is None else [str(name) for name in dataset.patients[indices]]
    group_of = np.arange(len(indices)) if names is None else np.unique(names, return_inverse=True)[1].reshape(-1)
    contents = _contents(dataset, indices, group_of)
    known = np.full(len(contents), FREE)
    if names is not None and fixed is not None:
        for group, name in zip(group_of, names, strict=True):
            known[group] = fixed.get(name, FREE)
    part_of_group = _deal(contents, fractions, known, rng)
    if names is not None and fixed is not None:
        fixed.update((name, int(part_of_group[group])) for group, name in zip(group_of, names, strict=True))
    part = part_of_group[group_of]
    ordered = [np.sort(indices[part == number]) for number in (TRAIN, VALIDATION, TEST)]
    return ordered[TRAIN], ordered[VALIDATION], ordered[TEST]


def _contents(dataset: Dataset, indices: Indices, group_of: Indices) -> Array:
    """Samples of each class in each group, int64 ``[groups, classes + 1]``; the last column counts all samples."""
    classes = len(dataset.class_names)
    has = np.column_stack([membership(dataset.labels[indices], classes), np.ones(len(indices), bool)])
    contents = np.zeros((int(group_of.max(initial=-1)) + 1, classes + 1), np.int64)
    np.add.at(contents, group_of, has)
    return contents


def _deal(contents: Array, fractions: tuple[float, float, float], known: Indices, rng: np.random.Generator) -> Indices:
    """A split for each group, ``[groups]``: first those that are ``known``, then the rest, largest first."""
    shuffled = rng.permutation(len(contents))
    order = shuffled[np.lexsort((-contents[shuffled, -1], known[shuffled] == FREE))]
    totals = contents.sum(axis=0)
    left = np.count_nonzero(contents, axis=0).tolist()  # groups of each class not dealt yet
    # lack[part][column]: what the split still needs, as a fraction of the class
    lack = [[fraction if total else 0.0 for total in totals] for fraction in fractions]
    parts = np.zeros(len(contents), np.int64)
    allowed = [part for part in (TRAIN, TEST, VALIDATION) if fractions[part] > 0]
    present: list[set[int]] = [set() for _ in totals]
    for group in order.tolist():
        row = contents[group]
        columns = np.flatnonzero(row).tolist()
        part = int(known[group])
        if part == FREE:
            part = _needed(columns, left, present)
        if part == FREE:
            part = max(allowed, key=lambda candidate: sum(lack[candidate][c] * row[c] for c in columns))
        for column in columns:
            lack[part][column] -= row[column] / totals[column]
            left[column] -= 1
            present[column].add(part)
        parts[group] = part
    return parts


def _needed(columns: list[int], left: list[int], present: list[set[int]]) -> int:
    """The split that must get this group lest the site (last column) lack one, or a class be tested untrained."""
    for column in reversed(columns):
        wanted = (TRAIN, TEST) if column == len(left) - 1 else (TRAIN,)
        missing = [part for part in wanted if part not in present[column]]
        if missing and left[column] <= len(missing):
            return missing[0]
    return FREE
