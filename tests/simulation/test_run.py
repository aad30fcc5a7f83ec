"""Runs as a user sees them: files, equal seeds, interruption and resumption."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from run_files import lines_without_seconds, models

from flop_p2p.errors import Interrupted, RunError
from flop_p2p.simulation import METHODS, run, run_simulation


def stop_after(monkeypatch: pytest.MonkeyPatch, asked: int) -> None:
    """As if Ctrl-C came before the stop wish is read for the ``asked``-th time."""
    count = 0

    @contextmanager
    def wish() -> Iterator[Callable[[], bool]]:
        def is_set() -> bool:
            nonlocal count
            count += 1
            return count >= asked

        yield is_set

    monkeypatch.setattr(run, "stop_wish", wish)


def test_a_run_leaves_what_the_design_says(experiment: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = run_simulation(experiment(), out)
    assert json.loads((out / "summary.json").read_text()) == summary
    assert {"config.toml", "metrics.jsonl", "summary.json", "models"} == {path.name for path in out.iterdir()}
    expected = {"method", "topology", "sites", "rounds", "seed", "metrics", "bytes", "seconds", "consensus_distance"}
    assert expected <= summary.keys()
    for figure in ("accuracy", "balanced_accuracy", "auroc"):
        assert {"mean", "min", "per_site"} <= summary["metrics"][figure].keys()
        assert len(summary["metrics"][figure]["per_site"]) == 4
    assert {"total", "busiest_site"} == summary["bytes"].keys()
    assert {"total", "training", "mixing", "evaluation"} == summary["seconds"].keys()
    lines = lines_without_seconds(out)
    assert [(line["round"], line["site"]) for line in lines[:5]] == [
        (1, "hospital-1"), (1, "hospital-2"), (1, "hospital-3"), (1, "hospital-4"), (2, "hospital-1"),
    ]  # fmt: skip
    assert len(lines) == 12


def test_mean_and_minimum_are_those_of_the_sites(experiment: Any, tmp_path: Path) -> None:
    summary = run_simulation(experiment(), tmp_path / "run")
    accuracy = summary["metrics"]["accuracy"]
    values = list(accuracy["per_site"].values())
    assert accuracy["mean"] == pytest.approx(sum(values) / 4)
    assert accuracy["min"] == min(values)
    last = [line for line in lines_without_seconds(tmp_path / "run") if line["round"] == 3]
    assert values == [line["test"]["accuracy"] for line in last]


@pytest.mark.parametrize("method", ["p2p-flop", "flop", "pooled"])
def test_the_same_seed_gives_the_same_metrics(experiment: Any, tmp_path: Path, method: str) -> None:
    overrides = {"method": method, "training__participation": 0.5, "topology__name": "epidemic:2"}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_simulation(experiment(seed=seed, **overrides), tmp_path / name)
    assert lines_without_seconds(tmp_path / "a") == lines_without_seconds(tmp_path / "b")
    assert models(tmp_path / "a") == models(tmp_path / "b")
    assert lines_without_seconds(tmp_path / "a") != lines_without_seconds(tmp_path / "c")


@pytest.mark.parametrize("asked", [1, 4, 7])
@pytest.mark.parametrize(
    "overrides",
    [
        {"training__momentum": 0.9},
        {"training__optimizer": "adam", "method": "p2p-flop-alt", "topology__name": "base:1"},
        {"method": "flop", "training__participation": 0.5, "training__head_loss": "logit-adjusted"},
        {"method": "fedavg-ft", "training__early_stopping": 1},
        {"gossip__compression": "top-k"},
    ],
    ids=["momentum", "adam-alternating", "participation", "early-stopping", "changes-alone"],
)
def test_resumed_equals_uninterrupted(
    experiment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, overrides: dict[str, Any]
) -> None:
    settings = experiment(**overrides)
    run_simulation(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, asked)
        with pytest.raises(Interrupted, match="--resume"):
            run_simulation(settings, tmp_path / "parts")
    assert (tmp_path / "parts" / "checkpoint.json").exists()
    summary = run_simulation(settings, tmp_path / "parts", resume=True)
    assert lines_without_seconds(tmp_path / "parts") == lines_without_seconds(tmp_path / "whole")
    assert models(tmp_path / "parts") == models(tmp_path / "whole")
    whole = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert {**summary, "seconds": 0} == {**whole, "seconds": 0}
    assert not list((tmp_path / "parts").glob("checkpoint*"))


def test_dropout_and_batch_norm_resume_exactly(
    experiment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def net(shape, outputs):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(), "
        "nn.Linear(16, outputs))\n"
    )
    monkeypatch.chdir(tmp_path)
    settings = experiment(model__name="nets:net")
    run_simulation(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(Interrupted):
            run_simulation(settings, tmp_path / "parts")
    run_simulation(settings, tmp_path / "parts", resume=True)
    assert models(tmp_path / "parts") == models(tmp_path / "whole")


def test_ctrl_c_on_a_real_process(tmp_path: Path) -> None:
    """A process that gets SIGINT keeps what there is, says how to go on, and does."""
    command = [sys.executable, "-m", "flop_p2p", "simulate", "--rounds", "60", "--limit-images", "100",
               "--model", "mlp", "--evaluate-every", "50", "--out", str(tmp_path / "run")]  # fmt: skip
    environment = {**os.environ, "COLUMNS": "300"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.count("\n") == 1
    assert "--resume" in errors
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rounds"] == 60


def test_a_finished_run_is_never_touched(experiment: Any, tmp_path: Path) -> None:
    settings = experiment()
    summary = run_simulation(settings, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    with pytest.raises(RunError, match="--resume"):
        run_simulation(settings, tmp_path / "run")
    with pytest.raises(RunError, match=r"training\.lr was 0\.05 and is now 0\.1"):
        run_simulation(experiment(training__lr=0.1), tmp_path / "run", resume=True)
    assert run_simulation(settings, tmp_path / "run", resume=True) == summary
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before


def test_a_foreign_directory_is_never_touched(experiment: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(RunError, match="choose another --out"):
        run_simulation(experiment(), tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


@pytest.mark.parametrize(
    "damage", ["checkpoint.json", "checkpoint-*", "missing part", "metrics.jsonl", "missing lines"]
)
def test_damaged_files_are_named(experiment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        with pytest.raises(Interrupted):
            run_simulation(experiment(), tmp_path / "run")
    if damage == "missing lines":
        (tmp_path / "run" / "metrics.jsonl").write_text("")
    elif damage == "missing part":
        next((tmp_path / "run").glob("checkpoint-*")).unlink()
    else:
        path = next((tmp_path / "run").glob(damage))
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"checkpoint|metrics\.jsonl"):
        run_simulation(experiment(), tmp_path / "run", resume=True)


def test_half_a_line_after_the_checkpoint_does_no_harm(
    experiment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_simulation(experiment(), tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        with pytest.raises(Interrupted):
            run_simulation(experiment(), tmp_path / "parts")
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2, "si')
    run_simulation(experiment(), tmp_path / "parts", resume=True)
    assert lines_without_seconds(tmp_path / "parts") == lines_without_seconds(tmp_path / "whole")


def test_a_damaged_summary_is_named(experiment: Any, tmp_path: Path) -> None:
    run_simulation(experiment(), tmp_path / "run")
    for damage in ("{}", "{", "[]"):
        (tmp_path / "run" / "summary.json").write_text(damage)
        with pytest.raises(RunError, match=r"summary\.json"):
            run_simulation(experiment(), tmp_path / "run", resume=True)


def test_early_stopping_ends_before_the_last_round(experiment: Any, tmp_path: Path) -> None:
    settings = experiment(training__rounds=40, training__early_stopping=2, data__split="0.4,0.3,0.3")
    summary = run_simulation(settings, tmp_path / "run")
    assert summary["rounds"] < 40


def test_early_stopping_never_adds_a_round(experiment: Any, tmp_path: Path) -> None:
    settings = experiment(method="fedavg-ft", training__rounds=2, training__early_stopping=1, training__lr=1e-12)
    assert run_simulation(settings, tmp_path / "run")["rounds"] == 2


def test_every_method_runs_and_counts_its_bytes(experiment: Any, tmp_path: Path) -> None:
    for name in METHODS:
        summary = run_simulation(experiment(method=name, training__head_loss="logit-adjusted"), tmp_path / name)
        assert (summary["bytes"]["total"] > 0) == (METHODS[name].exchange != "none")
        assert (summary["topology"] == "ring") == (METHODS[name].exchange == "gossip")
        assert ("accuracy_without_prior" in summary["metrics"]) == METHODS[name].trains


def test_late_sites_adopt_a_body_and_train_only_their_head(experiment: Any, tmp_path: Path) -> None:
    for name in ("p2p-flop", "flop", "pooled", "local", "majority", "dfedavg"):
        summary = run_simulation(experiment(method=name, late_sites=2), tmp_path / name)
        assert summary["sites"] == 2
        late = set(summary["late_sites"]["metrics"]["accuracy"]["per_site"])
        assert len(late) == 2
        assert not late & set(summary["metrics"]["accuracy"]["per_site"])


def test_the_chosen_round_is_the_best_on_validation(experiment: Any, tmp_path: Path) -> None:
    summary = run_simulation(experiment(training__rounds=4), tmp_path / "run")
    lines = lines_without_seconds(tmp_path / "run")
    for site, number in summary["chosen_round"]["rounds"].items():
        history = [line for line in lines if line["site"] == site]
        best = max(line["validation"]["accuracy"] for line in history)
        last = [line for line in history if line["validation"]["accuracy"] == best][-1]
        assert number == last["round"]
        assert summary["chosen_round"]["metrics"]["accuracy"]["per_site"][site] == last["test"]["accuracy"]


def test_without_validation_data_no_round_is_chosen(experiment: Any, tmp_path: Path) -> None:
    summary = run_simulation(experiment(data__split="0.8,0,0.2"), tmp_path / "run")
    assert summary["chosen_round"] is None
    assert summary["validation"] is None
