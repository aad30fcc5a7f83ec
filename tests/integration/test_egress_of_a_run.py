"""The egress log of a real run passes; falsified in any of five ways it fails, and the line is named."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from federation import SMALL

from flop_p2p.cli import command_line
from flop_p2p.config import load_experiment
from flop_p2p.errors import EgressError
from flop_p2p.local import run_local


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished federation of three daemons."""
    folder = tmp_path_factory.mktemp("egress") / "run"
    run_local(load_experiment(overrides={**SMALL, "data.sites": 3, "training.rounds": 3}), folder)
    return folder


def verify(folder: Path, *peers: str) -> None:
    """`flop-p2p egress verify` of hospital-1, with the receipts of its neighbours where they are given."""
    options = [option for peer in peers for option in ("--peer", str(folder / "sites" / peer / "state"))]
    site = str(folder / "sites" / "hospital-1" / "site.toml")
    command_line()(["egress", "verify", site, *options], prog_name="flop-p2p", standalone_mode=False)


def edit(lines: list[str]) -> None:
    lines[9] = lines[9].replace('"round":', '"round": ', 1)


def swap(lines: list[str]) -> None:
    lines[6], lines[7] = lines[7], lines[6]


def cut(lines: list[str]) -> None:
    del lines[-6:]


def insert(lines: list[str]) -> None:
    lines.insert(5, lines[4])


def rebuild(lines: list[str]) -> None:
    """Leave a line out and make all numbers and hashes fit again."""
    del lines[7]
    previous = "0" * 64
    for index, text in enumerate(lines):
        line = {**json.loads(text), "number": index + 1, "previous": previous}
        lines[index] = json.dumps(line, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256(lines[index].encode()).hexdigest()


def test_a_real_run_passes(run: Path) -> None:
    verify(run, "hospital-2", "hospital-3")


@pytest.mark.parametrize("peers", [(), ("hospital-2", "hospital-3")], ids=["alone", "with receipts"])
@pytest.mark.parametrize(
    ("falsify", "named"),
    [(edit, "line 10"), (swap, "line 7"), (cut, "egress"), (insert, "line 5"), (rebuild, "egress")],
)
def test_a_falsified_log_fails(
    run: Path, tmp_path: Path, falsify: Callable[[list[str]], None], named: str, peers: tuple[str, ...]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    log = tmp_path / "run" / "sites" / "hospital-1" / "state" / "egress.jsonl"
    lines = log.read_text().splitlines()
    falsify(lines)
    log.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(EgressError, match=named):
        verify(tmp_path / "run", *peers)


def test_a_log_rebuilt_together_with_its_checkpoints_fails_by_receipts_alone(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    state = tmp_path / "run" / "sites" / "hospital-1" / "state"
    lines = (state / "egress.jsonl").read_text().splitlines()
    rebuild(lines)
    (state / "egress.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for checkpoint in state.glob("checkpoint-*"):
        checkpoint.unlink()
    with pytest.raises(EgressError, match="hospital-"):
        verify(tmp_path / "run", "hospital-2")
