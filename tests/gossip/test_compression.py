"""What a site tells of its body, and where all go by it."""

from typing import Any

import numpy as np
import pytest

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.gossip.compression import move, publish, rounding

Bodies = np.ndarray[Any, np.dtype[np.float32]]
SITES, PARAMETERS = 4, 1500
RING: Bodies = np.array([[2, 1, 0, 1], [1, 2, 1, 0], [0, 1, 2, 1], [1, 0, 1, 2]], np.float32) / np.float32(4)
CHANGES = GossipSettings(compression="top-k", top_k=0.05, consensus_step=0.1)


def bodies(seed: int = 0) -> Bodies:
    return np.random.default_rng(seed).normal(size=(SITES, PARAMETERS)).astype(np.float32)


def gossip(x: Bodies, settings: GossipSettings, rounds: int) -> Bodies:
    """The bodies after so many rounds on a ring without training."""
    x = x.copy()
    public: list[Bodies | None] = [None] * SITES
    for round_index in range(rounds):
        told = [
            publish(x[site], public[site], settings, rounding(0, f"site-{site}", round_index)).public
            for site in range(SITES)
        ]
        public = [*told]
        mixed: Bodies = RING @ np.stack(told)
        move(x, np.stack(told), mixed, settings)
    return x


@pytest.mark.parametrize("compression", ["bfloat16", "int8", "top-k"])
def test_the_mean_of_the_sites_is_kept(compression: Any) -> None:
    settings = CHANGES if compression == "top-k" else GossipSettings(compression=compression)
    before = bodies()
    after = gossip(before, settings, 20)
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-5)
    assert np.abs(after - before).max() > 0.1


def test_rounding_bodies_before_they_are_mixed_would_not_keep_it() -> None:
    settings, before = GossipSettings(compression="int8"), bodies()
    public = np.stack([publish(x, None, settings, rounding(0, str(site), 0)).public for site, x in enumerate(before)])
    naive = RING @ public
    assert np.abs(naive.mean(axis=0) - before.mean(axis=0)).max() > 1e-3


@pytest.mark.parametrize(("compression", "distance"), [("bfloat16", 0.01), ("int8", 0.05)])
def test_quantized_gossip_comes_near_consensus(compression: Any, distance: float) -> None:
    after = gossip(bodies(), GossipSettings(compression=compression), 30)
    assert (after - after.mean(axis=0)).std() < distance


def test_choco_comes_to_consensus_as_close_as_one_likes() -> None:
    distances = [(x - x.mean(axis=0)).std() for x in (gossip(bodies(), CHANGES, rounds) for rounds in (50, 200, 400))]
    assert distances[0] > 5 * distances[1] > 25 * distances[2]


def test_choco_begins_with_the_body_itself_and_goes_on_with_changes() -> None:
    x = bodies()[0]
    first = publish(x, None, CHANGES, rounding(0, "a", 0))
    assert first.encoding == "float32"
    assert first.data.tobytes() == x.tobytes()
    np.testing.assert_array_equal(first.public, x)
    assert not np.shares_memory(first.public, x)
    moved = x + 1
    second = publish(moved, first.public, CHANGES, rounding(0, "a", 1))
    assert second.encoding == "top-k"
    assert (second.public != first.public).sum() == 75
    np.testing.assert_array_equal(first.public, x)


def test_the_step_is_that_of_top_k_alone() -> None:
    x, public, mixed = bodies(), bodies(1), bodies(2)
    for settings, step in ((CHANGES, 0.1), (GossipSettings(compression="int8"), 1)):
        moved = x.copy()
        move(moved, public, mixed, settings)
        np.testing.assert_allclose(moved, x + np.float32(step) * (mixed - public), rtol=1e-6)


def test_one_site_moves_as_its_row_among_all_does() -> None:
    x, public, mixed = bodies(), bodies(1), bodies(2)
    row = x[2].copy()
    move(x, public, mixed, CHANGES)
    move(row, public[2], mixed[2], CHANGES)
    np.testing.assert_array_equal(row, x[2])


def test_rounding_differs_by_site_round_and_seed() -> None:
    streams = [rounding(*key).random() for key in ((0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0))]
    assert len({*streams}) == 4
    assert rounding(0, "a", 0).random() == streams[0]
