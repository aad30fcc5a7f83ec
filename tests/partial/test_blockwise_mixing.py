"""Mixing of one site's body, against the matrix product of a simulation."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from flop_p2p.errors import SplitError
from flop_p2p.partial import mix, mixing
from flop_p2p.partial.mixing import BLOCK

SITES = ("Bonn", "Kyiv", "Oslo", "Rome", "Wien")


def bodies(count: int, parameters: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, parameters)).astype(np.float32)


@given(
    count=st.integers(1, 5),
    parameters=st.sampled_from([1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3]),
    seed=st.integers(0, 2**32),
)
def test_every_row_is_that_of_the_matrix_product(count: int, parameters: int, seed: int) -> None:
    X = bodies(count, parameters, seed)
    W = np.random.default_rng(seed).dirichlet(np.ones(count), count)
    for site in range(count):
        own = X[site].copy()
        mix(own, SITES[site], W[site, site], [(SITES[j], W[site, j], X[j]) for j in range(count) if j != site])
        assert np.allclose(own, W[site] @ X.astype(np.float64), rtol=1e-6, atol=1e-6)


def test_the_order_of_arrival_makes_no_difference() -> None:
    X = bodies(5, 1000, 0)
    results = []
    for order in ([0, 1, 3, 4], [4, 3, 1, 0], [3, 0, 4, 1]):
        own = X[2].copy()
        mix(own, SITES[2], 0.1, [(SITES[j], 0.3 - 0.05 * j, X[j]) for j in order])
        results.append(own.tobytes())
    assert len(set(results)) == 1
    by_hand = np.zeros(1000, np.float32)
    for j, weight in enumerate([0.3, 0.25, 0.1, 0.15, 0.1]):
        by_hand += np.float32(weight if j == 2 else 0.3 - 0.05 * j) * X[j]
    assert by_hand.tobytes() == results[0], "the sum runs in ascending order of names, the own among them"


def test_a_body_without_weight_counts_nothing() -> None:
    own, other = bodies(2, 10, 0)
    mix(own, "Rome", 0.0, [("Oslo", 1.0, other)])
    assert np.array_equal(own, other)


def test_memory_stays_small_and_parts_stay_as_they_are() -> None:
    own, first, second = bodies(3, 4_000_000, 0)
    for part in (first, second):
        part.setflags(write=False)
    tracemalloc.start()
    mix(own, "Kyiv", 1 / 3, [("Oslo", 1 / 3, first), ("Bonn", 1 / 3, second)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 < own.nbytes


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("Oslo", np.zeros(9, np.float32), r"the body of Oslo is \[9\] of float32; \[10\] of float32 is needed"),
        ("Oslo", np.zeros((1, 10), np.float32), r"\[1, 10\]"),
        ("Oslo", np.zeros(10, np.float64), "float64"),
        ("Rome", np.zeros(10, np.float32), "each body is mixed once, got Rome, Rome"),
    ],
)
def test_what_does_not_fit_changes_nothing(name: str, body: np.ndarray, message: str) -> None:
    own = np.ones(10, np.float32)
    with pytest.raises(SplitError, match=message):
        mix(own, "Rome", 0.5, [(name, 0.5, body)])
    assert np.array_equal(own, np.ones(10))


@settings(max_examples=30, deadline=None)
@given(sites=st.integers(1, 12), parameters=st.integers(1, 300), seed=st.integers(0, 99))
def test_all_rows_at_once_are_what_each_site_mixes_to_the_bit(sites: int, parameters: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    bodies = generator.normal(size=(sites, parameters)).astype(np.float32)
    dense = generator.random((sites, sites)) * (generator.random((sites, sites)) < 0.5) + np.eye(sites)
    weights = dense / dense.sum(axis=1, keepdims=True)
    at_once = bodies.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixing, "BLOCK", 64)
        mixing.mix_rows(at_once, csr_array(weights))
    for row in range(sites):
        own = bodies[row].copy()
        parts = [(f"{j:02}", weights[row, j], bodies[j]) for j in range(sites) if j != row and weights[row, j]]
        mixing.mix(own, f"{row:02}", weights[row, row], parts)
        np.testing.assert_array_equal(at_once[row], own)
    np.testing.assert_allclose(at_once, weights @ bodies, rtol=1e-5, atol=1e-6)
