"""Groups of sites that train at once in a simulation: who is in them, pauses, workers, and when they are formed."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from run_files import lines_without_seconds, models
from torch import nn

from flop_p2p.errors import ConfigError, TrainingError
from flop_p2p.models import build_model
from flop_p2p.simulation import Simulation, grouping, run_simulation
from flop_p2p.simulation.grouping import MANY_SITES, sites_at_once

UNEVEN = {"data__partition": "quantity:2", "data__sites": 5, "data__limit_images": 300}
CPU = torch.device("cpu")


def bodies_after_a_round(simulation: Simulation) -> torch.Tensor:
    assert simulation.run_round(lambda: False)
    return simulation.population.bodies


@pytest.mark.parametrize(
    "overrides",
    [
        {"topology__name": "exponential"},
        {"method": "flop", "training__participation": 0.6, "training__optimizer": "adam"},
        {"method": "p2p-flop-alt", "training__optimizer_state": "reset", "training__head_loss": "logit-adjusted"},
        {"model__name": "small-cnn", "data__limit_images": 120},
    ],
    ids=["mlp", "server", "alternating", "small-cnn"],
)
def test_groups_end_where_single_sites_do(simulation: Any, overrides: dict[str, Any]) -> None:
    settings = UNEVEN | overrides
    alone = bodies_after_a_round(simulation(sites_at_once=1, **settings))
    together = simulation(sites_at_once=2, **settings)
    found = bodies_after_a_round(together)
    assert not torch.equal(found, alone), "rounding must differ, or nothing trained at once"
    assert float(((found - alone).norm(dim=1) / alone.norm(dim=1)).max()) < 1e-4


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_any_number_of_workers_gives_the_same_models(experiment: Any, tmp_path: Path) -> None:
    settings = experiment(sites_at_once=2, training__optimizer="adam", **UNEVEN)
    for workers in (1, 2):
        run_simulation(settings, tmp_path / str(workers), workers=workers)
    assert lines_without_seconds(tmp_path / "2") == lines_without_seconds(tmp_path / "1")
    assert models(tmp_path / "2") == models(tmp_path / "1")


def test_a_group_is_of_sites_alike_and_nobody_is_left_out(simulation: Any) -> None:
    run = simulation(sites_at_once=2, **UNEVEN)
    groups = run.work.groups(range(5))
    assert [len(group) for group in groups] == [2, 2, 1]
    sizes = [len(run.sites[row].train) for group in groups for row in group]
    assert sizes == sorted(sizes, reverse=True)
    assert sorted(row for group in groups for row in group) == list(range(5))


def test_a_round_goes_on_after_a_pause_between_groups(simulation: Any, tmp_path: Path) -> None:
    whole, first, second = (simulation(sites_at_once=2, training__optimizer="adam", **UNEVEN) for _ in range(3))
    bodies_after_a_round(whole)
    assert not first.run_round(lambda: True)
    assert len(first.progress.trained) == 2
    first.save(tmp_path / "checkpoint.json")
    second.resume(tmp_path / "checkpoint.json")
    bodies_after_a_round(second)
    for name, tensor in whole.population.tensors().items():
        assert torch.equal(second.population.tensors()[name], tensor)


def test_divergence_in_a_group_names_the_site(simulation: Any) -> None:
    run = simulation(sites_at_once=2, **UNEVEN)
    row = run.work.groups(range(5))[1][0]
    run.population.bodies[row, 0] = torch.nan
    with pytest.raises(TrainingError, match=f"site {run.names[row]}, round 1: the loss is nan"):
        run.run_round(lambda: False)


def test_what_cannot_train_at_once_is_refused_where_it_is_asked_for(
    simulation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "MANY_SITES", 2)
    assert len(simulation().work.groups(range(4))) == 1
    images = {"training__augmentation": ("crop:1",)}
    assert len(simulation(**images).work.groups(range(4))) == 4
    with pytest.raises(ConfigError, match=r"--sites-at-once: .*augmentation"):
        simulation(sites_at_once=2, **images)


def test_when_sites_train_at_once() -> None:
    mlp, cnn = build_model("mlp", (4,), 3, 0), build_model("small-cnn", (1, 8, 8), 3, 0)
    assert sites_at_once(mlp, CPU, MANY_SITES) > 1
    assert sites_at_once(mlp, CPU, MANY_SITES - 1) == 1
    assert sites_at_once(nn.Linear(1000, 1000), CPU, MANY_SITES) == 1
    assert sites_at_once(cnn, CPU, 10_000) == 1
    assert sites_at_once(cnn, torch.device("cuda"), 8) > 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_ends_where_the_cpu_does(experiment: Any, tmp_path: Path) -> None:
    settings = {"model__name": "small-cnn", "training__optimizer": "adam", "training__rounds": 1}
    run_simulation(experiment(sites_at_once=1, **settings), tmp_path / "cpu", workers=1)
    run_simulation(experiment(device="cuda", **settings), tmp_path / "cuda")
    expected, found = (lines_without_seconds(tmp_path / device) for device in ("cpu", "cuda"))
    for one, other in zip(expected, found, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-2)
        assert other["consensus_distance"] == pytest.approx(one["consensus_distance"], rel=1e-2)
