"""Topology files: all that are shipped, and every way in which one can be wrong."""

from pathlib import Path

import numpy as np
import pytest

from flop_p2p.config import TopologySettings
from flop_p2p.errors import ConfigError, FlopError, TopologyError
from flop_p2p.topology import FAMILIES, Schedule, build_schedule, file_sites
from flop_p2p.topology.families import parse_spec
from flop_p2p.topology.files import read_topology_file

SHIPPED = sorted((Path(__file__).parents[2] / "topologies").glob("*.toml"))


@pytest.fixture
def write(tmp_path: Path):
    def write_file(text: str) -> TopologySettings:
        path = tmp_path / "net.toml"
        path.write_text(text)
        return TopologySettings(name=str(path))

    return write_file


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_load(path: Path) -> None:
    settings = TopologySettings(name=str(path))
    sites = file_sites(settings) or tuple(f"h{number}" for number in range(16))
    schedule = build_schedule(settings, sites)
    assert schedule.name == path.stem
    np.testing.assert_allclose(schedule.mixing(0).sum(axis=1), 1)
    assert path.read_text().startswith("# ")


def test_there_is_a_file_for_every_family() -> None:
    files = [read_topology_file(path) for path in SHIPPED]
    assert {parse_spec(file.family).family for file in files if file.family} == set(FAMILIES)
    assert sum(file.family is None for file in files) >= 2


def test_edges_without_weights_get_metropolis_hastings_ones(write) -> None:
    settings = write('sites = ["a", "b", "c"]\nedges = [["a", "b"], ["c", "b"]]')
    assert file_sites(settings) == ("a", "b", "c")
    schedule = build_schedule(settings, ["a", "b", "c"])
    np.testing.assert_allclose(schedule.mixing(0).toarray(), np.array([[2, 1, 0], [1, 1, 1], [0, 1, 2]]) / 3)
    assert (schedule.name, schedule.period, schedule.doubly_stochastic) == ("net", 1, True)


def test_matrices_follow_the_order_of_the_sites_asked_for(write) -> None:
    text = 'sites = ["a", "b", "c"]\nedges = [["a", "b", 0.5], ["b", "c", 0.25]]'
    schedule = build_schedule(write(text), ["c", "a", "b"])
    np.testing.assert_allclose(schedule.mixing(0).toarray(), [[0.75, 0, 0.25], [0, 0.5, 0.5], [0.25, 0.5, 0.25]])
    path = build_schedule(write('family = "path"\nsites = ["a", "b", "c"]'), ["b", "a", "c"])
    assert (path.mixing(0).toarray()[1, 2], path.mixing(0).toarray()[2, 1]) == (0, 0)
    settings = TopologySettings(name=write('family = "path"\nsites = ["a", "b", "c"]').name, weighting="samples")
    W = build_schedule(settings, ["b", "a", "c"], samples=[20, 10, 40]).mixing(0).toarray()
    np.testing.assert_allclose(W, [[1 / 2, 1 / 6, 1 / 3], [1 / 3, 2 / 3, 0], [1 / 6, 0, 5 / 6]])


def test_schedules_follow_the_order_of_the_sites_asked_for(write) -> None:
    text = 'family = "base:1"\nsites = ["a", "b", "c"]'
    straight, turned = build_schedule(write(text), ["a", "b", "c"]), build_schedule(write(text), ["c", "b", "a"])
    for index in range(straight.period or 0):
        np.testing.assert_array_equal(straight.mixing(index).toarray()[::-1, ::-1], turned.mixing(index).toarray())


def test_directed_edges_lead_to_the_second_site(write) -> None:
    text = """
        directed = true
        sites = ["a", "b", "c"]
        edges = [["a", "b", 0.5], ["b", "c", 0.7], ["c", "a", 0.25]]
        own_weights = {b = 0.5}
    """
    schedule = build_schedule(write(text), ["a", "b", "c"])
    np.testing.assert_allclose(schedule.mixing(0).toarray(), [[0.75, 0, 0.25], [0.5, 0.5, 0], [0, 0.7, 0.3]])
    assert not schedule.doubly_stochastic


def test_directed_edges_without_weights_are_averaged_uniformly(write) -> None:
    text = 'directed = true\nsites = ["a", "b", "c"]\nedges = [["a", "b"], ["b", "c"], ["c", "a"], ["c", "b"]]'
    W = build_schedule(write(text), ["a", "b", "c"]).mixing(0).toarray()
    np.testing.assert_allclose(W, [[1 / 2, 0, 1 / 2], [1 / 3, 1 / 3, 1 / 3], [0, 1 / 2, 1 / 2]])
    with pytest.raises(TopologyError, match="metropolis-hastings mixing weights need an undirected graph"):
        build_schedule(write(text).model_copy(update={"weights": "metropolis-hastings"}), ["a", "b", "c"])


def test_other_weights_can_be_asked_for_instead_of_given_ones(write) -> None:
    settings = write('sites = ["a", "b"]\nedges = [["a", "b", 0.1]]')
    assert build_schedule(settings, ["a", "b"]).mixing(0)[0, 1] == pytest.approx(0.1)
    uniform = settings.model_copy(update={"weights": "uniform"})
    assert build_schedule(uniform, ["a", "b"]).mixing(0)[0, 1] == pytest.approx(0.5)


EDGES = 'sites = ["ann", "bob", "cid", "dan"]\n'
WRONG = {
    "disconnected": (
        EDGES + 'edges = [["ann", "bob"], ["bob", "cid"]]',
        "disconnected into 2 parts; no edge links 'dan'",
    ),
    "self-loop": (EDGES + 'edges = [["ann", "bob"], ["cid", "cid"]]', "edge 2 is a self-loop of 'cid'"),
    "unknown site": (EDGES + 'edges = [["ann", "bobb"]]', "edge 1: unknown site 'bobb'; did you mean 'bob'?"),
    "edge twice": (
        EDGES + 'edges = [["ann", "bob"], ["bob", "ann"]]',
        "edges 1 and 2 are the same edge of 'bob' and 'ann'",
    ),
    "site twice": ('sites = ["a", "b", "a"]\nedges = [["a", "b"]]', "site 'a' is named twice"),
    "one site": ('sites = ["a"]\nfamily = "ring"', "name two or more sites"),
    "no sites": ('edges = [["a", "b"]]', "name two or more sites"),
    "no graph": (EDGES, "give either a family or edges"),
    "two graphs": (EDGES + 'family = "ring"\nedges = [["ann", "bob"]]', "give either a family or edges"),
    "negative weight": (EDGES + 'edges = [["ann", "bob", -0.1]]', "weight of edge 1, 'ann' and 'bob', is -0.1"),
    "zero weight": (EDGES + 'edges = [["ann", "bob", 0]]', "weights are positive"),
    "some weights": (EDGES + 'edges = [["ann", "bob", 0.1], ["bob", "cid"]]', "edge 2, 'bob' and 'cid', has no weight"),
    "too heavy": (
        EDGES + 'edges = [["ann", "bob", 0.6], ["bob", "cid", 0.5], ["cid", "dan", 0.1]]',
        "weights of what 'bob' receives sum to 1.1, more than one",
    ),
    "row not one": (
        EDGES + 'edges = [["ann", "bob", 0.2], ["bob", "cid", 0.2], ["cid", "dan", 0.2]]\nown_weights = {dan = 0.7}',
        "what 'dan' receives and of its own body sum to 0.9, not to one",
    ),
    "negative own weight": (
        EDGES + 'edges = [["ann", "bob", 0.2]]\nown_weights = {dan = -0.7}',
        "own weight of 'dan' is -0.7, below zero",
    ),
    "own weight of nobody": (
        EDGES + 'edges = [["ann", "bob", 0.2]]\nown_weights = {dann = 1.0}',
        "unknown site 'dann'",
    ),
    "own weights only": (EDGES + 'edges = [["ann", "bob"]]\nown_weights = {ann = 0.5}', "need weights on the edges"),
    "directed family": ('family = "ring"\ndirected = true', "directed and own_weights belong to edges"),
    "not strongly connected": (
        'directed = true\nsites = ["a", "b", "c"]\nedges = [["a", "b"], ["b", "a"], ["b", "c"]]',
        "not strongly connected: what 'c' sends never reaches 'a'",
    ),
    "never reached": (
        'directed = true\nsites = ["a", "b", "c"]\nedges = [["a", "b"], ["b", "a"], ["c", "a"]]',
        "not strongly connected: what 'a' sends never reaches 'c'",
    ),
    "directed edge twice": (
        'directed = true\nsites = ["a", "b"]\nedges = [["a", "b"], ["b", "a"], ["a", "b"]]',
        "edges 1 and 3 are the same edge",
    ),
    "unknown family": ('family = "rnig"', "no such family; did you mean 'ring'?"),
    "family of another size": ('family = "hypercube"\nsites = ["a", "b", "c"]', "does not exist for 3 sites"),
    "unknown key": ('familly = "ring"', "familly: unknown key; did you mean 'family'?"),
    "not an edge": (EDGES + 'edges = [["ann"]]', "edges.0.1: Field required"),
    "not a weight": (EDGES + 'edges = [["ann", "bob", "heavy"]]', "edges.0.2: Input should be a valid number"),
    "infinite weight": (EDGES + 'edges = [["ann", "bob", inf]]', "edges.0.2: Input should be a finite number"),
    "not TOML": ("sites = [", "not a valid TOML file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_with_one_line_that_names_it(write, case: str) -> None:
    text, message = WRONG[case]
    settings = write(text)
    with pytest.raises((TopologyError, ConfigError)) as caught:
        build_schedule(settings, ["ann", "bob", "cid", "dan"])
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{settings.name}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot read this file"):
        build_schedule(TopologySettings(name="absent.toml"), ["a", "b"])


def test_sites_that_differ_from_the_data_are_named(write) -> None:
    settings = write('sites = ["a", "b"]\nedges = [["a", "b"]]')
    with pytest.raises(TopologyError) as caught:
        build_schedule(settings, ["b", "c", "d"])
    assert "its 2 sites are not the 3 sites of the data; only in the file: 'a'; only in the data: 'c', 'd'" in str(
        caught.value
    )


def attempt(settings: TopologySettings, samples: list[int] | None = None) -> Schedule:
    return build_schedule(settings, [f"h{number}" for number in range(4)], samples)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exponential", "a directed graph cannot be weighted by samples; use uniform weighting"),
        ("one-peer-exponential", "made for the plain mean, not for weighting by samples; use uniform weighting"),
        ("base:1", "made for the plain mean"),
        ("epidemic:2", "made for the plain mean"),
    ],
)
def test_weighting_by_samples_is_refused_where_it_is_not_defined(name: str, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        attempt(TopologySettings(name=name, weighting="samples"), [1, 2, 3, 4])


@pytest.mark.parametrize("weights", ["uniform", "maximum-degree"])
def test_weighting_by_samples_excludes_other_weights(weights: str) -> None:
    with pytest.raises(TopologyError, match=f"excludes '{weights}' ones"):
        attempt(TopologySettings(name="ring", weighting="samples", weights=weights), [1, 2, 3, 4])


def test_given_weights_exclude_samples_and_families(write) -> None:
    settings = write('sites = ["a", "b"]\nedges = [["a", "b", 0.5]]').model_copy(update={"weighting": "samples"})
    with pytest.raises(TopologyError, match="excludes 'given' ones"):
        build_schedule(settings, ["a", "b"], [1, 2])
    with pytest.raises(TopologyError, match="only a topology file with weighted edges has given mixing weights"):
        attempt(TopologySettings(name="ring", weights="given"))
    settings = write('sites = ["a", "b"]\nedges = [["a", "b"]]').model_copy(update={"weights": "given"})
    with pytest.raises(TopologyError, match="given mixing weights need a weight on every edge"):
        build_schedule(settings, ["a", "b"])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (None, "needs the number of samples of all 4 sites, got none"),
        ([1, 2], "needs the number of samples of all 4 sites, got 2"),
        ([1, 2, 0, 4], "site 'h2' has 0 samples"),
    ],
)
def test_sample_counts_are_checked(samples: list[int] | None, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        attempt(TopologySettings(name="ring", weighting="samples"), samples)


@pytest.mark.parametrize(("sites", "message"), [(["a"], "two or more sites, got 1"), (["a", "a"], "not unique")])
def test_sites_are_checked(sites: list[str], message: str) -> None:
    with pytest.raises(FlopError, match=message):
        build_schedule(TopologySettings(name="ring"), sites)
