"""Mixing in place against plain NumPy, dense and sparse, whatever the block size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from flop_p2p.simulation import mixing


def random_matrix(sites: int, seed: int) -> csr_array:
    """Row-stochastic with about three neighbours a site."""
    generator = np.random.default_rng(seed)
    dense = generator.random((sites, sites)) * (generator.random((sites, sites)) < 3 / sites) + np.eye(sites)
    return csr_array(dense / dense.sum(axis=1, keepdims=True))


@settings(max_examples=40, deadline=None)
@given(sites=st.integers(1, 90), parameters=st.integers(1, 400), seed=st.integers(0, 99), block=st.integers(4, 4000))
def test_mixing_is_the_matrix_product(sites: int, parameters: int, seed: int, block: int) -> None:
    bodies = np.random.default_rng(seed).normal(size=(sites, parameters)).astype(np.float32)
    matrix = random_matrix(sites, seed)
    mixed = torch.from_numpy(bodies.copy())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixing, "BLOCK_BYTES", block)
        mixing.mix_in_place(mixed, mixing.mixing_tensor(matrix, mixed.device))
    np.testing.assert_allclose(mixed.numpy(), matrix.toarray() @ bodies, rtol=1e-5, atol=1e-6)


def test_mixing_writes_into_the_same_memory() -> None:
    bodies = torch.rand(4, 10)
    row = bodies[2]
    mixing.mix_in_place(bodies, torch.full((4, 4), 0.25))
    assert row.data_ptr() == bodies[2].data_ptr()
    torch.testing.assert_close(row, bodies.mean(dim=0))


def test_server_average_is_weighted() -> None:
    bodies = torch.tensor([[1.0, 2.0], [5.0, 6.0]])
    mixing.average_in_place(bodies, torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(bodies, torch.tensor([[2.0, 3.0], [2.0, 3.0]]))


def test_consensus_distance_of_two_points() -> None:
    # Mean (1, 0); each is 1 away from it.
    assert mixing.consensus_distance(torch.tensor([[0.0, 0.0], [2.0, 0.0]])) == pytest.approx(1.0)
    assert mixing.consensus_distance(torch.ones(5, 7)) == 0.0
