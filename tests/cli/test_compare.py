"""`flop-p2p compare`, as a user runs it."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flop_p2p.cli.compare import compare
from flop_p2p.errors import ConfigError, FlopError

SMALL = ("--data", "breast-cancer", "--sites", "4", "--partition", "dirichlet:1", "--rounds", "2", "--lr", "0.05")


def run(*arguments: str | Path, columns: int = 120) -> Any:
    app = typer.Typer()
    app.command()(compare)
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": str(columns), "NO_COLOR": "1"})


def test_two_methods_on_two_topologies_over_two_seeds(tmp_path: Path) -> None:
    out = tmp_path / "out"
    methods = ("--methods", "local,flop,p2p-flop", "--topologies", "ring,full", "--seeds", "2")
    result = run(*SMALL, *methods, "--lr-grid", "0.01,0.1", "--target-accuracy", "0.6", "--out", out)
    assert result.exit_code == 0, result.output
    assert "8/16 p2p-flop-full-lr0.1: accuracy" in result.stdout
    assert "breast-cancer, dirichlet:1 · 4 sites · 2 seeds · 2 rounds" in result.stdout
    assert "there are 2" in result.stdout
    assert "an accuracy of 60 %" in result.stdout
    written = {path.name for path in out.iterdir()}
    assert written == {
        "config.toml", "runs", "lr-grid", "comparison.json", "comparison.md",
        "accuracy-rounds.png", "accuracy-bytes.png", "accuracy-sites.png",
    }  # fmt: skip
    results = json.loads((out / "comparison.json").read_text())["results"]
    flop, full = results[1], results[3]
    assert full["topology"] == "full"
    assert full["lr"] == flop["lr"]
    # A full mesh gives what the server gives.
    assert full["differences"]["accuracy"]["estimate"]["mean"] == pytest.approx(0, abs=1e-9)

    again = run(out / "config.toml", "--out", out, "--resume")
    assert again.exit_code == 0, again.output
    assert again.stdout.count("kept from before") == 16


def test_ctrl_c_keeps_what_there_is_and_tells_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "flop_p2p", "compare", *SMALL, "--rounds", "40", "--methods", "local,flop"]
    process = subprocess.Popen(
        [*command, "--seeds", "6", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    if process.stdout is None:
        pytest.fail("no output")
    assert process.stdout.readline().startswith("1/12 local-seed0: accuracy")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not (out / "comparison.json").exists()
    _, arguments = errors.split("go on with: flop-p2p compare ")
    assert shlex.split(arguments) == [str(out / "config.toml"), "--out", str(out), "--resume"]

    result = run(*shlex.split(arguments), "--seeds", "1")
    assert result.exit_code == 0, result.output
    assert "1/2 local-seed0: accuracy" in result.stdout
    assert "kept from before" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("--methods", "local,magic"), ConfigError, "comparison.methods.1"),
        (("--topologies", "ring,moebius"), FlopError, "moebius"),
        (("--lr-grid", "0.1,fast"), ConfigError, "comparison.lr_grid.1"),
        (("--lr-grid", "0.1", "--split", "0.8,0,0.2"), ConfigError, "validation"),
    ],
)
def test_a_wrong_request_ends_before_anything_is_written(
    arguments: tuple[str, ...], error: type[FlopError], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*SMALL, *arguments)
    assert isinstance(result.exception, error)
    assert says in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_resume_needs_a_directory() -> None:
    result = run("--resume")
    assert result.exit_code == 2
    assert "--out" in result.output
