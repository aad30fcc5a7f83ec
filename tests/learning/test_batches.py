"""Which samples make up the gradient steps: each once an epoch, exact numbers of steps, balanced classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flop_p2p.config import TrainingSettings
from flop_p2p.learning.batches import round_batches, steps_of_round


def batches(labels: np.ndarray, seed: int = 0, steps: int | None = None, **settings: object) -> list[np.ndarray]:
    training = TrainingSettings(**settings)  # type: ignore[arg-type]
    count = steps or steps_of_round(len(labels), training)
    return round_batches(labels, training, np.random.default_rng(seed), count)


@given(samples=st.integers(1, 70), batch_size=st.integers(1, 20), epochs=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_sample_comes_once_an_epoch(samples: int, batch_size: int, epochs: int, seed: int) -> None:
    steps = batches(np.zeros(samples, int), seed, batch_size=batch_size, local_epochs=epochs)
    assert len(steps) % epochs == 0
    an_epoch = len(steps) // epochs
    for epoch in range(epochs):
        seen = np.concatenate(steps[epoch * an_epoch : (epoch + 1) * an_epoch])
        assert sorted(seen) == list(range(samples))
    assert all(positions.dtype == np.int64 for positions in steps)


@given(samples=st.integers(1, 70), batch_size=st.integers(2, 20))
def test_batches_are_full_but_for_the_last(samples: int, batch_size: int) -> None:
    sizes = [len(positions) for positions in batches(np.zeros(samples, int), batch_size=batch_size)]
    assert set(sizes[:-1]) <= {batch_size}
    if samples > 1:
        assert 2 <= sizes[-1] <= batch_size + 1


@pytest.mark.parametrize(
    ("samples", "sizes"), [(9, [5, 4]), (10, [5, 5]), (11, [5, 6]), (12, [5, 5, 2]), (6, [6]), (5, [5]), (1, [1])]
)
def test_a_trailing_batch_of_one_joins_the_one_before(samples: int, sizes: list[int]) -> None:
    assert [len(positions) for positions in batches(np.zeros(samples, int), batch_size=5)] == sizes


@given(samples=st.integers(1, 40), batch_size=st.integers(1, 12), steps=st.integers(1, 25))
def test_local_steps_are_exact(samples: int, batch_size: int, steps: int) -> None:
    assert len(batches(np.zeros(samples, int), batch_size=batch_size, local_steps=steps)) == steps


def test_local_steps_go_through_the_data_before_any_sample_comes_again() -> None:
    steps = batches(np.zeros(20, int), batch_size=5, local_steps=6)
    assert sorted(np.concatenate(steps[:4])) == list(range(20))
    assert len(set(np.concatenate(steps[4:]))) == 10


def test_any_number_of_steps_can_be_asked_for() -> None:
    """Pooled training takes the steps of all sites: of 8 sites with 20 samples 16 steps, not the 10 of 160 samples."""
    assert [
        steps_of_round(20, TrainingSettings(batch_size=16)) * 8,
        len(batches(np.zeros(160, int), batch_size=16)),
    ] == [16, 10]
    assert len(batches(np.zeros(160, int), steps=16, batch_size=16)) == 16


def test_order_differs_between_epochs_and_generators_and_repeats_with_the_seed() -> None:
    labels = np.zeros(30, int)
    first, second = batches(labels, batch_size=30, local_epochs=2)
    assert first.tolist() != second.tolist()
    assert batches(labels, seed=0, batch_size=30)[0].tolist() == first.tolist()
    assert batches(labels, seed=1, batch_size=30)[0].tolist() != first.tolist()


def test_balanced_sampling_equalizes_classes() -> None:
    labels = np.repeat([0, 1, 2], [9000, 900, 100])
    drawn = labels[np.concatenate(batches(labels, sampling="balanced"))]
    assert len(drawn) == 10_000
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 1 / 3, atol=0.03)
    plain = labels[np.concatenate(batches(labels))]
    assert np.bincount(plain).tolist() == [9000, 900, 100]


def test_balanced_sampling_leaves_out_classes_that_are_not_there() -> None:
    labels = np.repeat([1, 4], [900, 100])
    drawn = labels[np.concatenate(batches(labels, sampling="balanced"))]
    assert set(drawn) == {1, 4}
    assert abs(np.mean(drawn == 4) - 0.5) < 0.08


def test_balanced_sampling_of_labels_goes_by_the_first_one() -> None:
    none, first, second = [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]
    labels = np.array([none] * 800 + [first] * 150 + [second] * 50, dtype=np.float32)
    drawn = labels[np.concatenate(batches(labels, sampling="balanced"))]
    for kind in (none, first, second):
        assert abs((drawn == kind).all(axis=1).mean() - 1 / 3) < 0.08
