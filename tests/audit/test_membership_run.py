"""From settings to rows: what overfitted models reveal is found, and nothing where there is nothing."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flop_p2p.audit.membership import audit_membership
from flop_p2p.audit.membership.figures import Scores, figures
from flop_p2p.audit.membership.guesses import likelihood_ratio
from flop_p2p.audit.membership.holding import Holding
from flop_p2p.audit.membership.run import build_arms
from flop_p2p.audit.membership.views import Position, View
from flop_p2p.audit.membership.worlds import draw_candidates, train_world
from flop_p2p.config import ExperimentSettings, load_experiment
from flop_p2p.errors import ConfigError, TopologyError
from flop_p2p.simulation import load_data

Told = list[tuple[str, int, int]]


def experiment(**overrides: Any) -> ExperimentSettings:
    values = {
        "data.sites": 3,
        "data.limit_images": 120,
        "model.name": "mlp",
        "training.rounds": 2,
        "training.local_epochs": 15,
        "training.batch_size": 10,
        "training.lr": 0.05,
    }
    return load_experiment(overrides=values | {key.replace("__", "."): value for key, value in overrides.items()})


def audit(settings: ExperimentSettings) -> tuple[list[dict[str, Any]], Told]:
    told: Told = []
    progress: Callable[[str, int, int], None] = lambda *figures: told.append(figures)  # noqa: E731
    return [row for rows in audit_membership(settings, progress) for row in rows], told


def test_rows_are_reproducible_and_say_what_was_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flop_p2p.audit.membership.figures.RESAMPLES", 50)
    settings = experiment(
        audit__membership_methods="p2p-flop,fedavg", audit__membership_topologies="ring", training__local_epochs=2
    )
    first, told = audit(settings)
    again, _ = audit(settings)
    assert first == again
    assert json.loads(json.dumps(first)) == first
    assert [told[0], told[-1]] == [("membership: p2p-flop, ring", 0, 36), ("membership: fedavg", 36, 36)]
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    keys = ("method", "topology", "holder", "distance", "masking", "head", "test")
    found = {tuple(row[key] for key in keys) for row in first}
    assert len(found) == len(first)
    heads = [("own", "LiRA"), ("fitted", "LiRA"), ("known", "LiRA"), ("known", "loss threshold")]
    for masking in ("none", "pairwise"):
        for head, test in heads:
            assert ("p2p-flop", "ring", "neighbour", 1, masking, head, test) in found
    assert ("fedavg", None, "server", 1, "none", "shared", "LiRA") in found
    assert ("fedavg", None, "other site", 2, "none", "shared", "LiRA") in found
    assert {(row["victims"], row["shadows"], row["members"] + row["non_members"]) for row in first} == {(3, 16, 2160)}


def test_an_overfitted_model_gives_its_members_away_and_another_one_does_not() -> None:
    settings = experiment(method="local", data__limit_images=90)
    data = load_data(settings)
    candidates = draw_candidates(data, 18, 0)
    own, strange = [], []
    for number in range(18):
        world = train_world(settings, data, candidates, number)
        holding = Holding(world)
        of_victim, of_other = (View(Position("neighbour", 1), 0, 1, np.eye(3)[site]) for site in (0, 1))
        own.append(dict(holding.confidences(of_victim, candidates[0].indices))["known"])
        strange.append(dict(holding.confidences(of_other, candidates[0].indices))["own"])
    assert np.mean([member for member, _ in world.accuracy]) > 0.95, "the model must be overfitted"
    areas = []
    member, patient = candidates[0].member, np.broadcast_to(candidates[0].patients, candidates[0].member.shape)
    for confidences in (own, strange):
        score = likelihood_ratio(np.stack(confidences), member)
        guesses = Scores(score.ravel(), member.ravel(), patient.ravel())
        areas.append(figures(guesses, np.random.default_rng(0))["auc"])
    assert areas[0]["low"] > 0.6
    assert areas[1]["low"] < 0.5 < areas[1]["high"]


def test_topologies_are_that_of_the_experiment_ring_and_full_unless_given() -> None:
    def labels(**overrides: Any) -> list[str]:
        return [arm.label for arm in build_arms(experiment(**overrides))]

    everything = labels(topology__name="torus")
    assert everything[:3] == ["local", "fedavg", "flop"]
    assert everything[-3:] == ["p2p-flop, torus", "p2p-flop, ring", "p2p-flop, full"]
    chosen = labels(audit__membership_methods="dfedavg,local", audit__membership_topologies="full")
    assert chosen == ["dfedavg, full", "local"]


def test_masking_and_compression_are_of_gossip_alone() -> None:
    for key, value in (("privacy__masking", "pairwise"), ("gossip__compression", "int8")):
        settings = experiment(audit__membership_topologies="full", **{key: value})
        for arm in build_arms(settings):
            own = arm.settings(settings)
            assert own.method == arm.method
            assert own.privacy.masking == "none", "views are of bodies with and without it, and training is the same"
            assert own.gossip.compression == ("none" if arm.topology is None else settings.gossip.compression)
            assert arm.topology in (None, own.topology.name)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("membership_shadows", 14, "greater than or equal to 16"),
        ("membership_shadows", 17, "multiple of 2"),
        ("membership_methods", "majority", "Input should be"),
        ("membership_topologies", "ring,ring", "given twice"),
        ("membership_topologies", "ring,", "membership_topologies.1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(key: str, value: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        experiment(**{f"audit__{key}": value})


def test_every_topology_is_checked_before_anything_is_trained() -> None:
    told: Told = []
    settings = experiment(audit__membership_topologies="full,torus")  # no torus of three sites
    with pytest.raises(TopologyError, match="torus"):
        list(audit_membership(settings, lambda *figures: told.append(figures)))
    assert not told
