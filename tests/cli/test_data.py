"""`flop-p2p data show`, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from flop_p2p.cli.data import app
from flop_p2p.errors import FlopError


def run(*arguments: str | Path, columns: int = 100) -> Any:
    environment = {"COLUMNS": str(columns), "NO_COLOR": "1", "FLOP_P2P_DATA": None}
    return CliRunner().invoke(app, ["show", *map(str, arguments)], env=environment)


def test_table_and_picture(tmp_path: Path) -> None:
    result = run("--data", "digits", "--partition", "dirichlet:1", "--sites", "4", "--out", tmp_path / "partition.png")
    assert result.exit_code == 0, result.output
    assert "digits: 1,797 samples, images of 1 x 8 x 8" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("hospital-2"))
    *classes, train, validation, test, total = [
        int(cell.replace("–", "0").replace(",", "")) for cell in row.split()[1:]
    ]
    assert len(classes) == 10
    assert sum(classes) == train + validation + test == total
    assert "classes a site:" in result.stdout
    with Image.open(tmp_path / "partition.png") as picture:
        assert picture.width > 600


def test_many_sites_are_cut_with_a_note(tmp_path: Path) -> None:
    result = run("--sites", "150", "--out", tmp_path / "partition.png")
    assert result.exit_code == 0, result.output
    assert "hospital-040" in result.stdout
    assert "hospital-041" not in result.stdout
    assert "first 40 of 150 sites" in result.stdout


def test_experiment_file_with_overriding_flag(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text('[data]\nsource = "breast-cancer"\nsites = 3\n')
    result = run(tmp_path / "experiment.toml", "--sites", "2")
    assert result.exit_code == 0, result.output
    assert "30 features, binary" in result.stdout
    assert "hospital-2" in result.stdout
    assert "hospital-3" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--partition", "dirichlet:-1"], 3, "data.partition"),
        (["--data", "medmnist"], 3, "--data medmnist needs --data-path"),
        (["--data", "medmnist", "--data-path", "absent.npz"], 4, "no file at absent.npz"),
        (["--partition", "natural"], 3, "--partition natural"),
        (["--partition", "dirichlet:0.001", "--sites", "50"], 4, "leaves no sample for hospital-"),
        (["--exclude-site", "Paris"], 3, "--exclude-site Paris"),
        (["--min-site-images", "5000"], 4, "no site is left"),
        (["--split", "0.9,0.1,0"], 3, "data.split"),
        (["--out", "no/such/folder/picture.png"], 9, "cannot write this picture"),
    ],
)
def test_each_mistake_has_its_error(arguments: list[str], code: int, message: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, FlopError)
    assert error.exit_code == code
    assert message in str(error)
    assert "\n" not in str(error)


def test_a_damaged_file_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "xrays.npz").write_bytes(b"PK\x03\x04 and nothing more")
    arguments = ["data", "show", "--data", "medmnist", "--data-path", str(tmp_path / "xrays.npz")]
    result = subprocess.run(
        [sys.executable, "-c", "from flop_p2p.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
        check=False,
    )
    assert result.returncode == 4
    assert "xrays.npz: cannot read" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
