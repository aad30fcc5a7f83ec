"""The splits of a site: disjoint, complete, close to what was asked, by patient, and fair to tiny classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flop_p2p.data.dataset import Dataset
from flop_p2p.data.splits import split_site

DEFAULT = (0.7, 0.1, 0.2)


def dataset_of(labels: list[int] | np.ndarray, patients: np.ndarray | None = None, classes: int = 5) -> Dataset:
    labels = np.asarray(labels, np.int64)
    names = tuple(str(number) for number in range(classes))
    return Dataset("made", np.zeros((len(labels), 1), np.float32), labels, names, "multiclass", None, patients)


def split(
    dataset: Dataset, fractions: tuple[float, float, float] = DEFAULT, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return split_site(dataset, np.arange(len(dataset.labels)), fractions, np.random.default_rng(seed))


@settings(max_examples=100, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=300),
    fractions=st.sampled_from([DEFAULT, (0.8, 0.0, 0.2), (0.5, 0.25, 0.25), (0.2, 0.2, 0.6)]),
    patients=st.sampled_from([None, 3, 40]),
    seed=st.integers(0, 2**32),
)
def test_splits_are_disjoint_complete_and_never_without_training_or_test(
    labels: list[int], fractions: tuple[float, float, float], patients: int | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = None if patients is None else rng.integers(patients, size=len(labels))
    dataset = dataset_of(labels, ids)
    parts = split(dataset, fractions, seed)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    if ids is None or len(set(ids.tolist())) > 1:
        assert len(parts[0]) >= 1
        assert len(parts[2]) >= 1
    if fractions[1] == 0:
        assert len(parts[1]) == 0
    if ids is not None:
        owners = [set(ids[part].tolist()) for part in parts]
        assert sum(map(len, owners)) == len(set().union(*owners))


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(10, 90), min_size=2, max_size=5), seed=st.integers(0, 1000))
def test_fractions_are_met_overall_and_in_each_class(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    parts = split(dataset_of(labels), seed=seed)
    for fraction, part in zip(DEFAULT, parts, strict=True):
        assert abs(len(part) - fraction * len(labels)) <= 2
        for label, size in enumerate(sizes):
            assert abs((labels[part] == label).sum() - fraction * size) <= 1.5


def test_patients_of_unequal_size_still_meet_the_fractions() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(80), rng.integers(1, 8, size=80))
    labels = (patients * 7919) % 3
    parts = split(dataset_of(labels, patients))
    for fraction, part in zip(DEFAULT, parts, strict=True):
        assert len(part) / len(labels) == pytest.approx(fraction, abs=0.02)
        for label in range(3):
            assert (labels[part] == label).sum() / (labels == label).sum() == pytest.approx(fraction, abs=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_tiny_classes(seed: int) -> None:
    labels = np.array([0] * 30 + [1] + [2] * 2 + [3] * 3)
    train, _, test = (labels[part] for part in split(dataset_of(labels), seed=seed))
    assert (train == 1).sum() == 1
    assert ((train == 2).sum(), (test == 2).sum()) == (1, 1)
    assert ((train == 3).sum(), (test == 3).sum()) == (2, 1)


def test_one_sample_of_each_class_still_gives_a_test_sample() -> None:
    train, validation, test = split(dataset_of([0, 1]))
    assert (len(train), len(validation), len(test)) == (1, 0, 1)


def test_the_same_generator_gives_the_same_split() -> None:
    dataset = dataset_of(np.arange(200) % 5)
    first, again, other = (split(dataset, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_a_patient_of_two_sites_is_in_the_same_split_at_both() -> None:
    patients = np.array([f"p{number % 30}" for number in range(120)])
    dataset = dataset_of(np.arange(120) % 3, patients)
    fixed: dict[str, int] = {}
    parts = [
        split_site(dataset, own, DEFAULT, np.random.default_rng(0), fixed)
        for own in (np.arange(60), np.arange(60, 120))
    ]
    pooled = [set(patients[np.concatenate(pair)].tolist()) for pair in zip(*parts, strict=True)]
    assert sum(map(len, pooled)) == 30


def test_multilabel_is_stratified() -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random((500, 3)) < (0.5, 0.2, 0.05)).astype(np.float32)
    dataset = Dataset("chests", np.zeros((500, 1), np.float32), labels, ("a", "b", "c"), "multilabel")
    for fraction, part in zip(DEFAULT, split(dataset), strict=True):
        assert len(part) == pytest.approx(fraction * 500, abs=5)
        assert labels[part].sum(axis=0) == pytest.approx(fraction * labels.sum(axis=0), abs=4)
