"""Time-varying schedules: exact means, the Base-(k+1) graph, and epidemic rounds."""

import math

import numpy as np
import pytest

from flop_p2p.config import GossipSettings, TopologySettings
from flop_p2p.errors import TopologyError
from flop_p2p.topology import Schedule, build_schedule, check_compression, check_masking
from flop_p2p.topology.base_graph import base_graph

SIZES = range(2, 41)


def build(spec: str, sites: int, seed: int = 0) -> Schedule:
    return build_schedule(TopologySettings(name=spec), [f"h{number}" for number in range(sites)], seed=seed)


def product(schedule: Schedule) -> np.ndarray:
    """All rounds of a period, one after the other, ``[sites, sites]``."""
    result = np.eye(len(schedule.sites))
    for index in range(schedule.period or 1):
        result = schedule.mixing(index) @ result
    return result


@pytest.mark.parametrize("exponent", range(1, 8))
def test_one_peer_exponential_reaches_the_exact_mean_in_k_rounds(exponent: int) -> None:
    sites = 2**exponent
    schedule = build("one-peer-exponential", sites)
    assert schedule.period == exponent
    np.testing.assert_allclose(product(schedule), 1 / sites, rtol=0, atol=1e-12)


def test_one_peer_exponential_has_one_peer_at_any_size() -> None:
    for sites in SIZES:
        schedule = build("one-peer-exponential", sites)
        assert schedule.period == math.ceil(math.log2(sites))
        for index in range(schedule.period):
            W = schedule.mixing(index).toarray()
            assert ((W != 0).sum(axis=1) == 2).all()
            np.testing.assert_allclose(W.sum(axis=0), 1)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("sites", [*SIZES, 63, 64, 100])
def test_base_graph(sites: int, k: int) -> None:
    schedule = build(f"base:{k}", sites)
    assert schedule.period is not None
    assert schedule.period <= 2 * math.log(sites, k + 1) + 2 + 1e-9
    for index in range(schedule.period):
        W = schedule.mixing(index).toarray()
        np.testing.assert_array_equal(W, W.T)
        np.testing.assert_allclose(W.sum(axis=1), 1, rtol=0, atol=1e-12)
        assert W.min() >= 0
        assert ((W != 0).sum(axis=1) - 1).max() <= k
    bodies = np.random.default_rng(sites).standard_normal((sites, 7))
    mixed = product(schedule) @ bodies
    np.testing.assert_allclose(mixed, np.tile(bodies.mean(axis=0), (sites, 1)), rtol=0, atol=1e-5)
    np.testing.assert_allclose(product(schedule), 1 / sites, rtol=0, atol=1e-12)


def test_lengths_of_base_graphs_are_those_of_the_paper() -> None:
    """Powers of k+1 take log_{k+1} n rounds; 5 and 6 sites with k = 1 are the examples of Figures 3 and 4."""
    assert [len(base_graph(sites, 1)) for sites in (2, 4, 8, 16, 5, 6)] == [1, 2, 3, 4, 5, 4]
    assert [len(base_graph(sites, 2)) for sites in (3, 9, 27)] == [1, 2, 3]
    assert len(base_graph(4, 3)) == 1


def test_epidemic_rounds_send_to_so_many_and_average_what_arrives() -> None:
    for sites in (3, 4, 10, 40):
        schedule = build("epidemic:2", sites)
        assert schedule.period is None
        assert not schedule.doubly_stochastic
        for index in range(20):
            W = schedule.mixing(index).toarray()
            links = (W != 0) & ~np.eye(sites, dtype=bool)
            assert (links.sum(axis=0) == 2).all()
            received = links.sum(axis=1)
            np.testing.assert_allclose(W, (links + np.eye(sites)) / (1 + received[:, None]))


def test_epidemic_rounds_are_uniform_over_the_others() -> None:
    schedule = build("epidemic:1", 5)
    counts = sum((schedule.mixing(index).toarray() != 0).astype(int) for index in range(2000))
    links = counts[~np.eye(5, dtype=bool)]
    assert abs(links - 500).max() < 5 * math.sqrt(2000 * 0.25 * 0.75)


def test_any_epidemic_round_can_be_computed_alone() -> None:
    one, other = build("epidemic:2", 12), build("epidemic:2", 12)
    in_order = [one.mixing(index).toarray() for index in range(6)]
    for index in (5, 0, 3):
        np.testing.assert_array_equal(other.mixing(index).toarray(), in_order[index])
    assert (in_order[0] != in_order[1]).any()


def test_matrices_are_kept_and_repeat_with_the_period() -> None:
    for spec in ("ring", "base:1", "one-peer-exponential"):
        schedule = build(spec, 12)
        assert schedule.period is not None
        assert schedule.mixing(schedule.period + 1) is schedule.mixing(1)
        assert schedule.mixing(0).has_sorted_indices


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("one-peer-exponential", "the same edges in all rounds"),
        ("base:1", "the same edges in all rounds"),
        ("epidemic:2", "the same edges in all rounds"),
        ("exponential", "edges that work both ways"),
    ],
)
def test_changes_alone_need_edges_that_stay_and_work_both_ways(spec: str, reason: str) -> None:
    schedule = build(spec, 6)
    check_compression(GossipSettings(compression="int8"), schedule)
    with pytest.raises(TopologyError, match=f"top-k needs {reason}; use bfloat16 or int8"):
        check_compression(GossipSettings(compression="top-k"), schedule)


@pytest.mark.parametrize("spec", ["ring", "star", "full"])
def test_changes_alone_go_with_undirected_static_graphs(spec: str) -> None:
    check_compression(GossipSettings(compression="top-k"), build(spec, 6))


@pytest.mark.parametrize("spec", ["ring", "full", "exponential", "random-regular:3", "hypercube"])
def test_masked_gossip_goes_with_two_senders_in_every_round(spec: str) -> None:
    check_masking(build(spec, 8))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("path", "receives from 1 other in round 1"),
        ("star", "receives from 1 other in round 1"),
        ("one-peer-exponential", "receives from 1 other in round 1"),
        ("base:1", "receives from 1 other in round 1"),
        ("epidemic:3", "draws its edges anew in every round"),
    ],
)
def test_masked_gossip_is_refused_where_a_sum_would_be_of_one(spec: str, reason: str) -> None:
    with pytest.raises(TopologyError, match=f"{reason}; with privacy.masking every site needs two senders"):
        check_masking(build(spec, 8))
