"""Streams of randomness: equal for equal purposes, independent for others, the same on every machine."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flop_p2p.seeding import derive, derive_int

parts = st.one_of(st.text(min_size=1, max_size=6), st.integers(1, 2**31))
purposes = st.lists(parts, min_size=1, max_size=4).map(tuple)


@given(st.integers(0, 2**40), purposes)
def test_equal_purposes_have_equal_streams(seed: int, purpose: tuple[str | int, ...]) -> None:
    assert derive(seed, *purpose).random(4).tolist() == derive(seed, *purpose).random(4).tolist()
    assert derive_int(seed, *purpose) == derive_int(seed, *purpose)


@given(st.integers(0, 2**31), purposes, purposes)
def test_other_purposes_have_other_streams(seed: int, first: tuple, second: tuple) -> None:
    same = derive_int(seed, *first) == derive_int(seed, *second)
    assert same == (first == second)


@given(st.integers(0, 2**31), st.integers(0, 2**31), purposes)
def test_other_seeds_have_other_streams(first: int, second: int, purpose: tuple) -> None:
    assert (derive_int(first, *purpose) == derive_int(second, *purpose)) == (first == second)


def test_rounds_counted_from_zero_have_their_own_streams() -> None:
    drawn = {derive_int(seed, what, round_index) for seed in (0, 1) for what in "ab" for round_index in range(50)}
    assert len(drawn) == 200


def test_streams_are_the_same_everywhere() -> None:
    assert derive(0, "batches", "north", 3).permutation(8).tolist() == [7, 0, 1, 6, 3, 5, 4, 2]
    assert derive_int(7, "model") == 7505975806473910501


@given(st.integers(0, 2**63), purposes)
def test_integers_are_seeds_for_torch(seed: int, purpose: tuple[str | int, ...]) -> None:
    value = derive_int(seed, *purpose)
    assert type(value) is int
    assert 0 <= value < 2**63
    torch.Generator().manual_seed(value)


def test_neighbouring_streams_are_not_correlated() -> None:
    columns = np.stack([derive(0, "batches", "north", round_index).random(2000) for round_index in range(8)])
    correlation = np.corrcoef(columns) - np.eye(8)
    assert abs(correlation).max() < 0.1


def test_global_generators_are_left_alone() -> None:
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    derive(0, "a").random(3)
    derive_int(0, "b")
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        derive(0, "round", -1)
