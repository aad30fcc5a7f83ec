"""`flop-p2p audit leakage`, as a user runs it."""

import json
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from flop_p2p.cli.audit import app
from flop_p2p.errors import ConfigError, FlopError

TINY = (
    "--sites", "4", "--limit-images", "120", "--model", "mlp", "--rounds", "2", "--moments", "1", "--images", "2",
    "--attacks", "inversion,labels", "--inversion-batches", "1", "--iterations", "2", "--label-images", "4",
    "--label-iterations", "2", "--label-others", "1",
)  # fmt: skip


def run(*arguments: str | Path) -> Any:
    root = typer.Typer()
    root.add_typer(app, name="audit")
    return CliRunner().invoke(root, ["audit", *map(str, arguments)], env={"COLUMNS": "160", "NO_COLOR": "1"})


def test_an_audit_writes_tables_and_pictures(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("leakage", *TINY, "--out", out)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {
        "config.toml", "audit.json", "audit.md", "inversion-round1-step-of-1.png", "inversion-round1-message.png",
    }  # fmt: skip
    for text in ("training up to round 1", "Inversion of gradients", "body, dummy head", "iDLG", "written to"):
        assert text in result.stdout
    table = (out / "audit.md").read_text()
    for row in json.loads((out / "audit.json").read_text())["rows"]:
        assert row["knows"] in table

    again = run("leakage", out / "config.toml", "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert (out / "audit.json").read_bytes() == (tmp_path / "again" / "audit.json").read_bytes()


def test_an_unknown_attack_is_refused() -> None:
    result = run("leakage", "--attacks", "guessing")
    assert isinstance(result.exception, ConfigError)
    assert "audit.attacks.0" in str(result.exception)


def test_topologies_are_split_at_commas() -> None:
    result = run("leakage", "--attacks", "membership", "--membership-topologies", "ring,circle")
    assert isinstance(result.exception, FlopError)
    assert "'circle'" in str(result.exception)
