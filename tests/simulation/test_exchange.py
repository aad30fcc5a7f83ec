"""Who trains, what is mixed and how many bodies travel."""

from typing import Any

import numpy as np
import pytest
import torch

from flop_p2p.errors import ConfigError, TopologyError, TrainingError
from flop_p2p.simulation import METHODS
from flop_p2p.simulation.exchange import NoExchange, ServerExchange, build_exchange

NAMES = ["a", "b", "c", "d"]


def test_nothing_is_exchanged_alone() -> None:
    exchange = NoExchange(3)
    bodies = torch.rand(3, 5)
    before = bodies.clone()
    exchange.mix(bodies, 0)
    assert torch.equal(bodies, before)
    assert exchange.messages(0).sum() == 0


def test_server_takes_a_fraction_and_averages_only_those() -> None:
    exchange = ServerExchange([1, 2, 3, 4, 5], fraction=0.4, seed=0)
    seen = set()
    for round_index in range(20):
        chosen = exchange.trains(round_index)
        assert len(chosen) == 2
        assert list(chosen) == sorted(set(chosen))
        seen |= set(chosen.tolist())
        bodies = torch.arange(5.0).repeat(3, 1).T.contiguous()
        exchange.mix(bodies, round_index)
        weights = chosen + 1
        expected = float((weights * chosen).sum() / weights.sum())
        torch.testing.assert_close(bodies, torch.full((5, 3), expected))
    assert seen == set(range(5))


def test_server_counts_uploads_and_downloads() -> None:
    messages = ServerExchange([1] * 5, fraction=0.4, seed=0).messages(3)
    assert messages.sum() == 2 * (2 + 5)  # two uploads, five downloads, each seen at both ends
    assert messages[-1] == 7
    assert sorted(messages[:-1]) == [1, 1, 1, 2, 2]


def test_ring_counts_two_neighbours(experiment: Any) -> None:
    exchange = build_exchange(METHODS["p2p-flop"], experiment(topology__name="ring"), NAMES, [1, 2, 3, 4])
    assert exchange.messages(0).tolist() == [4, 4, 4, 4]


def test_busiest_participant_of_a_star_is_its_centre(experiment: Any) -> None:
    exchange = build_exchange(METHODS["dfedavg"], experiment(topology__name="star"), NAMES, [1, 2, 3, 4])
    assert sorted(exchange.messages(0).tolist()) == [2, 2, 2, 6]


def test_sample_weights_reach_server_and_gossip_alike(experiment: Any) -> None:
    settings = experiment(topology__name="full", topology__weighting="samples")
    samples = [10, 20, 30, 40]
    gossip = build_exchange(METHODS["p2p-flop"], settings, NAMES, samples)
    server = build_exchange(METHODS["flop"], settings, NAMES, samples)
    bodies = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32))
    other = bodies.clone()
    gossip.mix(bodies, 0)
    server.mix(other, 0)
    torch.testing.assert_close(bodies, other)


@pytest.mark.parametrize(
    ("compression", "sizes"),
    [
        ("none", [4000, 4000, 4000]),
        ("bfloat16", [2000, 2000, 2000]),
        ("int8", [1004, 1004, 1004]),
        ("top-k", [4000, 60, 60]),  # whole bodies first
    ],
)
def test_a_message_takes_what_its_encoding_takes(experiment: Any, compression: str, sizes: list[int]) -> None:
    settings = experiment(topology__name="ring", gossip__compression=compression)
    gossip = build_exchange(METHODS["p2p-flop"], settings, NAMES, [1, 2, 3, 4])
    server = build_exchange(METHODS["flop"], experiment(), NAMES, [1, 2, 3, 4])
    assert [gossip.message_bytes(1000, index) for index in range(3)] == sizes
    assert server.message_bytes(1000, 1) == 4000


@pytest.mark.parametrize("compression", ["bfloat16", "int8", "top-k"])
@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_compressed_gossip_keeps_the_weighted_mean_and_mixes(experiment: Any, compression: str, weighting: str) -> None:
    settings = experiment(topology__name="ring", topology__weighting=weighting, gossip__compression=compression)
    samples = [1, 2, 3, 4]
    exchange = build_exchange(METHODS["p2p-flop"], settings, NAMES, samples)
    before = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 2000)).astype(np.float32))
    bodies = before.clone()
    state = exchange.state(bodies)
    for round_index in range(3):
        exchange.mix(bodies, round_index)
    weights = torch.tensor(samples if weighting == "samples" else [1, 1, 1, 1], dtype=torch.float32)
    torch.testing.assert_close(weights @ bodies, weights @ before, atol=1e-4, rtol=0)
    assert (bodies - bodies.mean(dim=0)).norm() < 0.9 * (before - before.mean(dim=0)).norm()
    assert list(state) == (["public"] if compression == "top-k" else [])


def test_wide_bodies_are_mixed_block_by_block(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for block_bytes in (8 << 20, 4 * 4 * 700):
        monkeypatch.setattr("flop_p2p.simulation.exchange.BLOCK_BYTES", block_bytes)
        settings = experiment(topology__name="ring", gossip__compression="int8")
        exchange = build_exchange(METHODS["p2p-flop"], settings, NAMES, [1, 2, 3, 4])
        bodies = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 2000)).astype(np.float32))
        exchange.mix(bodies, 0)
        results.append(bodies)
    assert torch.equal(*results)


def test_compression_is_refused_where_nobody_gossips(experiment: Any) -> None:
    for method in ("flop", "local", "pooled"):
        with pytest.raises(ConfigError, match=f"{method} does not gossip, and only gossip is compressed"):
            build_exchange(METHODS[method], experiment(gossip__compression="int8"), NAMES, [1, 2, 3, 4])


def test_changes_alone_are_refused_where_edges_change(experiment: Any) -> None:
    settings = experiment(topology__name="base:1", gossip__compression="top-k")
    with pytest.raises(TopologyError, match="top-k needs the same edges in all rounds"):
        build_exchange(METHODS["p2p-flop"], settings, NAMES, [1, 2, 3, 4])


@pytest.mark.parametrize("weighting", ["uniform", "samples"])
@pytest.mark.parametrize("topology", ["ring", "full"])
def test_masked_gossip_is_gossip_in_fixed_point(
    experiment: Any, topology: str, weighting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for masking, block_bytes in (("none", 8 << 20), ("pairwise", 8 << 20), ("pairwise", 4 * 4 * 700)):
        monkeypatch.setattr("flop_p2p.simulation.exchange.BLOCK_BYTES", block_bytes)
        settings = experiment(topology__name=topology, topology__weighting=weighting, privacy__masking=masking)
        exchange = build_exchange(METHODS["p2p-flop"], settings, NAMES, [1, 2, 3, 4])
        bodies = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 2000)).astype(np.float32))
        for round_index in range(3):
            exchange.mix(bodies, round_index)
        results.append(bodies)
    plain, masked, in_blocks = results
    assert torch.equal(masked, in_blocks)
    assert 0 < (masked - plain).norm() / plain.norm() < 1e-6
    assert exchange.message_bytes(1000, 0) == 4000


def test_a_body_beyond_the_range_is_refused_by_the_name_of_its_site(experiment: Any) -> None:
    settings = experiment(topology__name="ring", privacy__masking="pairwise", privacy__masking_range=2.0)
    exchange = build_exchange(METHODS["p2p-flop"], settings, NAMES, [1, 2, 3, 4])
    bodies = torch.zeros(4, 10)
    bodies[2, 3] = 2.5
    with pytest.raises(TrainingError, match=r"site c: number 3 of the body is 2\.5, and masking takes .* within 2"):
        exchange.mix(bodies, 0)


def test_masking_is_refused_where_nobody_gossips(experiment: Any) -> None:
    for method in ("flop", "local", "pooled"):
        with pytest.raises(ConfigError, match=f"{method} does not gossip, and only gossip is masked"):
            build_exchange(METHODS[method], experiment(privacy__masking="pairwise"), NAMES, [1, 2, 3, 4])


def test_sample_weights_are_refused_where_they_are_undefined(experiment: Any) -> None:
    settings = experiment(topology__name="one-peer-exponential", topology__weighting="samples")
    with pytest.raises(TopologyError, match="uniform"):
        build_exchange(METHODS["p2p-flop"], settings, NAMES, [1, 2, 3, 4])
