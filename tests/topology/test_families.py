"""Every family at every number of sites from 2 to 40 at which it exists."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flop_p2p.config import TopologySettings
from flop_p2p.errors import TopologyError
from flop_p2p.topology import FAMILIES, Schedule, build_schedule, graphs
from flop_p2p.topology.analysis import diameter
from flop_p2p.topology.families import exists, parse_spec, usage

SIZES = range(2, 41)
SPECS = [*FAMILIES, "random-regular:2", "random-regular:3", "small-world:2:0.5", "small-world:6:1", "epidemic:1"]
SPECS += [f"base:{k}" for k in (2, 3, 4)]
UNDIRECTED_STATIC = ["path", "ring", "star", "full", "grid", "torus", "random-regular", "small-world", "hypercube"]
# Rows and columns of these sum to one with default weights.
DOUBLY_STOCHASTIC = [spec for spec in SPECS if not spec.startswith("epidemic")]


def names(sites: int) -> list[str]:
    return [f"h{number:02d}" for number in range(sites)]


def build(spec: str, sites: int, seed: int = 0, **options: object) -> Schedule:
    samples = options.pop("samples", None)
    return build_schedule(TopologySettings(name=spec, **options), names(sites), samples, seed)


def rounds(schedule: Schedule) -> list[np.ndarray]:
    return [schedule.mixing(index).toarray() for index in range(schedule.period or 5)]


def sizes(spec: str) -> list[int]:
    found = [size for size in SIZES if exists(parse_spec(spec), size)]
    assert found
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_rows_sum_to_one_and_every_site_keeps_some_of_its_body(spec: str) -> None:
    for size in sizes(spec):
        for W in rounds(build(spec, size)):
            assert W.shape == (size, size)
            assert W.dtype == np.float64
            np.testing.assert_allclose(W.sum(axis=1), 1, rtol=0, atol=1e-12)
            assert W.min() >= 0
            assert np.diag(W).min() > 0


@pytest.mark.parametrize("spec", DOUBLY_STOCHASTIC)
def test_columns_sum_to_one_with_default_weights(spec: str) -> None:
    for size in sizes(spec):
        schedule = build(spec, size)
        assert schedule.doubly_stochastic
        for W in rounds(schedule):
            np.testing.assert_allclose(W.sum(axis=0), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weights", ["metropolis-hastings", "maximum-degree", "uniform"])
@pytest.mark.parametrize("spec", UNDIRECTED_STATIC)
def test_mixing_weights_follow_the_graph(spec: str, weights: str) -> None:
    for size in sizes(spec):
        graph = build(spec, size).mixing(0).toarray() != 0
        degrees = graph.sum(axis=1) - 1
        schedule = build(spec, size, weights=weights)
        W = schedule.mixing(0).toarray()
        for i, j in zip(*np.nonzero(graph & ~np.eye(size, dtype=bool)), strict=True):
            largest = {"uniform": degrees[i], "maximum-degree": degrees.max()}.get(weights, max(degrees[i], degrees[j]))
            assert W[i, j] == pytest.approx(1 / (1 + largest))
        assert ((W != 0) & ~np.eye(size, dtype=bool) == graph & ~np.eye(size, dtype=bool)).all()
        np.testing.assert_allclose(W.sum(axis=1), 1)
        regular = degrees.min() == degrees.max()
        assert schedule.doubly_stochastic == (weights != "uniform" or regular)


@pytest.mark.parametrize("spec", UNDIRECTED_STATIC)
def test_weighting_by_samples_keeps_the_weighted_mean(spec: str) -> None:
    for size in sizes(spec):
        samples = np.random.default_rng(size).integers(1, 500, size)
        schedule = build(spec, size, weighting="samples", samples=samples.tolist())
        W = schedule.mixing(0).toarray()
        np.testing.assert_allclose(samples @ W, samples, rtol=1e-12)
        np.testing.assert_allclose(W.sum(axis=1), 1, rtol=0, atol=1e-12)
        assert W.min() >= 0
        assert schedule.weighting == "samples"


def test_a_full_mesh_weighted_by_samples_averages_as_a_server_would() -> None:
    samples = [10, 30, 60]
    W = build("full", 3, weighting="samples", samples=samples).mixing(0).toarray()
    np.testing.assert_allclose(W, np.tile([0.1, 0.3, 0.6], (3, 1)))


def test_weights_by_samples_on_a_path() -> None:
    W = build("path", 3, weighting="samples", samples=[10, 20, 40]).mixing(0).toarray()
    np.testing.assert_allclose(W, [[2 / 3, 1 / 3, 0], [1 / 6, 1 / 2, 1 / 3], [0, 1 / 6, 5 / 6]])


@given(st.sampled_from(UNDIRECTED_STATIC), st.integers(2, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_weighted_mean_at_any_sample_counts(spec: str, size: int, data: st.DataObject) -> None:
    if not exists(parse_spec(spec), size):
        return
    samples = data.draw(st.lists(st.integers(1, 10**7), min_size=size, max_size=size))
    W = build(spec, size, weighting="samples", samples=samples).mixing(0)
    np.testing.assert_allclose(np.asarray(samples) @ W, samples, rtol=1e-9)


@pytest.mark.parametrize(
    ("spec", "edges"),
    [
        ("path", lambda n: n - 1),
        ("ring", lambda n: n if n > 2 else 1),
        ("star", lambda n: n - 1),
        ("full", lambda n: n * (n - 1) // 2),
        ("torus", lambda n: 2 * n),
        ("random-regular:3", lambda n: 3 * n // 2),
        ("random-regular:2", lambda n: n),
        ("small-world:4:0.2", lambda n: 2 * n),
        ("hypercube", lambda n: n * (n.bit_length() - 1) // 2),
    ],
)
def test_graphs_are_connected_and_have_their_number_of_edges(spec, edges) -> None:
    for size in sizes(spec):
        W = build(spec, size).mixing(0).toarray()
        assert (W == W.T).all()
        graph = nx.from_numpy_array(W - np.diag(np.diag(W)))
        assert nx.is_connected(graph)
        assert graph.number_of_edges() == edges(size)


def test_shapes_by_their_diameter() -> None:
    found = {spec: diameter(build(spec, 16)) for spec in ("path", "ring", "star", "full", "grid", "torus", "hypercube")}
    assert found == {"path": 15, "ring": 8, "star": 2, "full": 1, "grid": 6, "torus": 4, "hypercube": 4}


def test_exponential_graph_receives_from_powers_of_two() -> None:
    W = build("exponential", 6).mixing(0).toarray()
    np.testing.assert_allclose(W[0], np.array([1, 1, 1, 0, 1, 0]) / 4)
    np.testing.assert_allclose(W[3], np.array([0, 1, 0, 1, 1, 1]) / 4)
    schedule = build("one-peer-exponential", 6)
    assert schedule.period == 3
    assert [np.flatnonzero(schedule.mixing(index).toarray()[0]).tolist() for index in range(4)] == [
        [0, 1],
        [0, 2],
        [0, 4],
        [0, 1],
    ]


@pytest.mark.parametrize("spec", ["random-regular:3", "random-regular:2", "small-world:4:0.5", "epidemic:2"])
def test_random_families_are_drawn_by_the_seed(spec: str) -> None:
    first, again, other = (build(spec, 20, seed).mixing(3).toarray() for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    ("spec", "size", "needs"),
    [
        ("hypercube", 12, "a power of two; nearest sizes: 8 and 16"),
        ("torus", 14, "both at least 3; nearest sizes: 12 and 15"),
        ("torus", 5, "both at least 3; nearest size: 9"),
        ("grid", 7, "both at least 2; nearest sizes: 6 and 8"),
        ("random-regular:3", 7, "even number of them for odd K; nearest sizes: 6 and 8"),
        ("random-regular:4", 4, "nearest size: 5"),
        ("small-world:6", 6, "more than K sites; nearest size: 7"),
        ("epidemic:3", 3, "more than S sites; nearest size: 4"),
    ],
)
def test_sizes_without_the_family_are_refused_with_the_nearest_ones(spec: str, size: int, needs: str) -> None:
    with pytest.raises(TopologyError, match=f"does not exist for {size} sites") as caught:
        build(spec, size)
    assert needs in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rign", r"no such family; did you mean 'ring'\? There are path, ring"),
        ("", "no such family"),
        ("ring:3", "too many parameters, write ring"),
        ("base:0", r"K \(most neighbours in a round\) must be a whole number, at least 1, not '0'"),
        ("base:1.5", "must be a whole number"),
        ("base:", "must be a whole number"),
        ("small-world:3", "must be an even number, at least 2, not '3'"),
        ("small-world:4:1.5", r"P \(probability to rewire a link\) must be a number from 0 to 1, not '1.5'"),
        ("small-world:4:nan", "must be a number from 0 to 1"),
        ("random-regular:1", "must be a whole number, at least 2"),
        ("epidemic:two", "must be a whole number"),
    ],
)
def test_wrong_names_are_refused(spec: str, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        build(spec, 8)


def test_parameters_left_out_take_their_defaults() -> None:
    assert build("base", 8).name == "base:1"
    assert build("small-world:6", 8).name == "small-world:6:0.2"
    assert usage("small-world") == "small-world:K:P"


@pytest.mark.parametrize("spec", ["random-regular:3", "small-world:2:1"])
def test_random_graphs_that_never_connect_are_refused(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "ATTEMPTS", 0)
    with pytest.raises(TopologyError, match=f"{spec}: no connected graph of 20 sites came up in 0 draws"):
        build(spec, 20)


def test_a_thousand_sites_stay_sparse() -> None:
    for spec in ("ring", "torus", "hypercube", "random-regular:4", "base:1", "one-peer-exponential", "epidemic:2"):
        assert build(spec, 1024).mixing(0).nnz <= 12 * 1024
