"""Figures of schedules, held against closed forms and against one another."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from flop_p2p.config import TopologySettings
from flop_p2p.topology import Schedule, analysis, build_schedule
from flop_p2p.topology.analysis import (
    analyse,
    consensus_distances,
    influence,
    mean_reached,
    messages,
    rounds_to_shrink,
    spectral_gap,
)


def build(spec: str, sites: int, **options: object) -> Schedule:
    samples = options.pop("samples", None)
    names = [f"h{number}" for number in range(sites)]
    return build_schedule(TopologySettings(name=spec, **options), names, samples)


def schedule_of(*matrices: list[list[float]]) -> Schedule:
    kept = tuple(csr_array(np.array(matrix)) for matrix in matrices)
    names = tuple("abcdefgh"[: kept[0].shape[0]])
    return Schedule("test", names, len(kept), False, "uniform", kept.__getitem__)


def ring_gap(sites: int) -> float:
    """A ring's eigenvalues are 1/3 + 2/3 cos(2 pi m / n)."""
    values = [1 / 3 + 2 / 3 * math.cos(2 * math.pi * m / sites) for m in range(1, sites)]
    return 1 - max(map(abs, values))


@pytest.mark.parametrize("sites", [4, 16, 25])
def test_spectral_gaps_in_closed_form(sites: int) -> None:
    assert spectral_gap(build("ring", sites)) == pytest.approx(ring_gap(sites))
    assert spectral_gap(build("full", sites)) == 1
    assert spectral_gap(build("star", sites)) == pytest.approx(1 / sites)
    assert spectral_gap(build("star", sites, weights="uniform")) == pytest.approx(0.5)


def test_exact_schedules_have_gap_one_and_random_ones_none() -> None:
    assert spectral_gap(build("one-peer-exponential", 32)) == 1
    assert spectral_gap(build("base:2", 23)) == 1
    assert spectral_gap(build("epidemic:2", 12)) is None


@pytest.mark.parametrize("spec", ["ring", "star", "exponential", "one-peer-exponential", "base:1", "full"])
def test_sparse_and_dense_gaps_agree(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = build(spec, 60)
    dense = spectral_gap(schedule)
    monkeypatch.setattr(analysis, "DENSE_SITES", 10)
    assert spectral_gap(schedule) == pytest.approx(dense, rel=1e-5)


def test_sparse_and_dense_agree_by_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = build("grid", 60, weighting="samples", samples=list(range(10, 70)))
    gap, weights = spectral_gap(schedule), influence(schedule)
    monkeypatch.setattr(analysis, "DENSE_SITES", 10)
    assert spectral_gap(schedule) == pytest.approx(gap, rel=1e-5)
    np.testing.assert_allclose(influence(schedule), weights, rtol=1e-8)
    assert analysis.diameter(schedule) == 14


def test_influence_is_in_proportion_to_samples() -> None:
    samples = np.array([5, 80, 20, 1, 44])
    schedule = build("path", 5, weighting="samples", samples=samples.tolist())
    np.testing.assert_allclose(influence(schedule), samples / samples.sum())
    assert "By choice not doubly stochastic" in mean_reached(schedule)


def test_influence_with_uniform_weights_is_in_proportion_to_degrees() -> None:
    schedule = build("star", 5, weights="uniform")
    np.testing.assert_allclose(influence(schedule), np.array([5, 2, 2, 2, 2]) / 13)
    sentence = mean_reached(schedule)
    assert "least 15.38% (h1), most 38.46% (h0); an equal share is 20.00%" in sentence


@given(st.lists(st.lists(st.floats(0.05, 1), min_size=4, max_size=4), min_size=4, max_size=8))
@settings(max_examples=40, deadline=None)
def test_bodies_converge_to_the_mean_weighted_by_influence(rows: list[list[float]]) -> None:
    matrices = [np.array(rows[start : start + 4]) for start in range(0, len(rows) - 3, 4)]
    matrices = [matrix / matrix.sum(axis=1, keepdims=True) for matrix in matrices]
    schedule = schedule_of(*[matrix.tolist() for matrix in matrices])
    body = np.array([1.0, -2.0, 0.5, 8.0])
    limit = influence(schedule) @ body
    for index in range(400 * len(matrices)):
        body = schedule.mixing(index) @ body
    np.testing.assert_allclose(body, limit, atol=1e-8)


def test_means_of_doubly_stochastic_and_random_schedules() -> None:
    np.testing.assert_allclose(influence(build("ring", 5)), 0.2)
    assert "plain mean" in mean_reached(build("ring", 5))
    assert influence(build("epidemic:2", 5)) is None
    assert "by chance" in mean_reached(build("epidemic:2", 5))


@given(st.sampled_from(["path", "ring", "grid", "torus", "random-regular:3", "exponential"]), st.integers(8, 40))
@settings(max_examples=25, deadline=None)
def test_rounds_to_shrink_go_with_the_spectral_gap(spec: str, sites: int) -> None:
    """The consensus distance shrinks at least as fast as the gap says for a normal matrix, and no faster in the end."""
    from flop_p2p.topology.families import exists, parse_spec

    assume(exists(parse_spec(spec), sites))
    schedule = build(spec, sites)
    gap = spectral_gap(schedule)
    assert gap is not None
    assert gap < 1
    rounds = rounds_to_shrink(schedule, 1000)
    assert rounds is not None
    assert rounds <= math.ceil(math.log(1000) / -math.log(1 - gap))
    tail = list(itertools.islice(consensus_distances(schedule), rounds, rounds + 2))
    assert tail[0] <= 1e-3
    assert tail[1] / tail[0] <= 1 - gap + 1e-9


def test_rounds_to_shrink_of_exact_schedules_are_their_period() -> None:
    for spec, sites in (("one-peer-exponential", 64), ("base:1", 21), ("base:3", 21), ("full", 9)):
        schedule = build(spec, sites)
        assert rounds_to_shrink(schedule, 1e9) == schedule.period


def test_bodies_that_only_swap_never_agree() -> None:
    swap = schedule_of([[0, 1], [1, 0]])
    assert rounds_to_shrink(swap, 1000, limit=50) is None
    assert spectral_gap(swap) == 0


def test_degrees_and_messages() -> None:
    star = analyse(build("star", 10))
    assert (star.sends, star.receives, star.messages, star.diameter) == ((1, 9), (1, 9), 18, 2)
    exponential = analyse(build("exponential", 10))
    assert (exponential.sends, exponential.receives, exponential.messages) == ((4, 4), (4, 4), 40)
    epidemic = analyse(build("epidemic:3", 10))
    assert (epidemic.sends, epidemic.messages, epidemic.diameter) == ((3, 3), 30, 1)
    base = build("base:1", 5)
    counts = [messages(base, index) for index in range(base.period or 0)]
    assert analyse(base).messages == pytest.approx(np.mean(counts))
    assert max(counts) == 4


def test_large_schedules_are_analysed_from_their_edges() -> None:
    """A torus of 32 x 32: its eigenvalues are (1 + 2 cos a + 2 cos b) / 5 with multiples a, b of 2 pi / 32."""
    figures = analyse(build("torus", 1024))
    assert figures.diameter == 32
    assert figures.spectral_gap == pytest.approx(1 - (3 + 2 * math.cos(2 * math.pi / 32)) / 5, rel=1e-4)
