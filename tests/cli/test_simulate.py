"""`flop-p2p simulate` from the command line to the files it leaves."""

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flop_p2p.cli import simulate

app = typer.Typer()
app.command()(simulate.simulate)
SMALL = ["--limit-images", "200", "--sites", "4", "--model", "mlp", "--rounds", "2"]


def run(*arguments: str) -> str:
    """Run the command; what it printed."""
    result = CliRunner().invoke(app, [*SMALL, *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_prints_its_rounds_and_draws_its_pictures(tmp_path: Path) -> None:
    out = tmp_path / "run"
    output = run("--out", str(out))
    assert "round 2/2 accuracy 0." in output
    assert "balanced accuracy" in output
    assert "doubly stochastic" not in output
    for name in ("partition.png", "accuracy.png", "topology.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "hospital-4" in page
    assert not re.search(r"(src|href)='http", page)


def test_what_a_lopsided_topology_means_is_said(tmp_path: Path) -> None:
    output = run("--topology", "star", "--mixing-weights", "uniform", "--out", str(tmp_path / "run"))
    assert "ot doubly stochastic" in output


def test_without_gossip_there_is_no_topology(tmp_path: Path) -> None:
    run("--method", "flop", "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run" / "topology.png").exists()


def test_flags_override_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("experiment.toml").write_text('method = "local"\n[training]\nlr = 0.3\nbatch_size = 8\n')
    run("experiment.toml", "--lr", "0.1", "--seed", "4")
    (directory,) = Path("runs").iterdir()
    summary = json.loads((directory / "summary.json").read_text())
    assert (summary["method"], summary["lr"], summary["seed"]) == ("local", 0.1, 4)


def test_sites_take_the_names_of_a_topology_file(tmp_path: Path) -> None:
    file = tmp_path / "clinics.toml"
    file.write_text(
        'sites = ["graz", "linz", "ulm", "wien"]\nedges = [["graz", "linz"], ["linz", "ulm"], ["ulm", "wien"]]'
    )
    run("--topology", str(file), "--out", str(tmp_path / "run"))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["metrics"]["accuracy"]["per_site"]) == ["graz", "linz", "ulm", "wien"]


def test_a_private_run_tells_what_it_spent_and_what_became_of_batch_norm(tmp_path: Path) -> None:
    noise = ("--noise-multiplier", "2", "--limit-images", "60", "--local-steps", "1", "--batch-size", "8")
    output = run(*noise, "--model", "resnet18", "--rounds", "1", "--out", str(tmp_path / "run"))
    assert "resnet18: GroupNorm takes the place of 20 BatchNorm layers" in output
    assert "differential privacy of a record: epsilon " in output
    assert "stopped sending" not in output


def test_a_budget_that_is_spent_is_told() -> None:
    sites = {"a": {"epsilon": 3.0, "stopped": 2}, "b": {"epsilon": 2.5, "stopped": None}}
    line = simulate.privacy_line({"unit": "patient", "delta": 1e-6, "sites": sites})
    assert line == (
        "differential privacy of a patient: epsilon 2.50 to 3.00 at delta 1e-06; 1 of 2 spent their budget and stopped "
        "sending"
    )
    sites = {"a": {"epsilon": 3.0, "stopped": 2}, "b": {"epsilon": 0.0, "stopped": 1}}
    line = simulate.privacy_line({"unit": "patient", "delta": 1e-6, "sites": sites})
    assert line.endswith(
        "; 1 of 2 spent their budget and stopped sending; 1 of 2 never trained nor sent, for one round would exceed "
        "the budget"
    )
    sites = {"a": {"epsilon": 3.0, "stopped": None}, "b": {"epsilon": 0.0, "stopped": 1}}
    line = simulate.privacy_line({"unit": "patient", "delta": 1e-6, "sites": sites})
    assert "stopped sending" not in line


def test_resume_needs_a_directory() -> None:
    result = CliRunner().invoke(app, ["--resume"])
    assert result.exit_code == 2
    assert "--out" in result.output
