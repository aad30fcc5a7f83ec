"""Several processes that torchrun starts, over gloo on loopback, give what one process gives."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_files import lines_without_seconds, models
from torchrun_cases import STOPPED, TRAINED, settings

from flop_p2p.simulation import run_simulation

CASES = Path(__file__).with_name("torchrun_cases.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]  # on a free port
PROGRAM = ["-m", "flop_p2p", "simulate", "--engine", "torchrun"]
DIGITS = ["--data", "digits", "--limit-images", "200", "--sites", "4"]
SECONDS = 120  # far more than it takes; a hang is an error


def start(count: int, *arguments: str, cwd: Path | None = None) -> "subprocess.Popen[str]":
    command = [*TORCHRUN, "--nproc-per-node", str(count), *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def cases(count: int, folder: Path, what: str) -> dict[str, Any]:
    """What the ranks found."""
    process = start(count, str(CASES), str(folder), what)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of the runs of two ranks, and what they found."""
    folder = tmp_path_factory.mktemp("two")
    return folder, cases(2, folder, "runs")


@pytest.fixture(scope="module")
def three(two: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """As `two`; the three ranks went on with the run that two had to stop."""
    folder = tmp_path_factory.mktemp("three")
    shutil.copytree(two[0] / "stopped", folder / "stopped")
    return folder, cases(3, folder, "resume")


def assert_same_run(one: Path, other: Path, *, exact: bool = True) -> None:
    """Equal models and metrics; the consensus distance, and all without ``exact``, but for rounding."""
    for name, values in models(one).items():
        again = models(other)[name]
        if exact:
            assert again == values, name
        else:
            assert np.allclose(*(np.frombuffer(v, np.float32) for v in (again, values)), rtol=1e-5, atol=1e-6), name
    for a, b in zip(lines_without_seconds(one), lines_without_seconds(other), strict=True):
        distances = a.pop("consensus_distance"), b.pop("consensus_distance")
        assert distances == (None, None) or distances[1] == pytest.approx(distances[0], rel=1e-5, abs=1e-6)
        if exact:
            assert a == b
    first, second = (json.loads((path / "summary.json").read_text()) for path in (one, other))
    for key in ("bytes", "rounds", "sites", "seed", *(["metrics", "pooled_test", "late_sites"] if exact else [])):
        assert first[key] == second[key]


def test_mixing_alone_is_that_of_one_process(two: Any, three: Any) -> None:
    for _, found in (two, three):
        distances = found["distances"]
        assert max(distances.values()) < 1e-6
        for name in ("ring", "one-peer-exponential", "base", "int8", "top-k", "masked"):
            assert distances[name] == 0


@pytest.mark.parametrize("name", list(TRAINED))
def test_training_is_that_of_one_process(two: Any, tmp_path: Path, name: str) -> None:
    run_simulation(settings(TRAINED[name]), tmp_path / "one")
    assert_same_run(tmp_path / "one", two[0] / name, exact=name != "server")


def test_an_error_at_one_rank_is_met_by_all(two: Any) -> None:
    assert two[1]["failed"] == ["TrainingError: site x: diverged"] * 2


def test_ranks_of_different_runs_do_not_begin(two: Any) -> None:
    assert two[1]["different"].startswith("the processes have different settings, data or initial weights")
    assert not (two[0] / "different").exists()


def test_all_stop_where_one_was_asked_to_and_any_number_goes_on(two: Any, three: Any, tmp_path: Path) -> None:
    assert re.search("stopped after 1 of 3 rounds.*--resume", two[1]["stopped"])
    manifest = json.loads((two[0] / "stopped" / "checkpoint.json").read_text())
    assert len(manifest["parts"]) == 2
    assert 0 < len(manifest["progress"]["trained"]) < 9
    run_simulation(settings(STOPPED), tmp_path / "whole")
    shutil.copytree(two[0] / "stopped", tmp_path / "one")
    run_simulation(settings(STOPPED), tmp_path / "one", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "one")
    assert_same_run(tmp_path / "whole", three[0] / "stopped")
    assert not list((three[0] / "stopped").glob("checkpoint*"))


def test_an_error_is_one_line_and_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import os\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10))\n"
        "    def forward(self, x):\n"
        "        return self.layers(x) * (float('nan') if os.environ['RANK'] == '1' else 1)\n"
        "def net(shape, outputs):\n"
        "    return Net()\n"
    )
    process = start(2, *PROGRAM, *DIGITS, "--model", "nets:net", "--out", "run", cwd=tmp_path)
    output, _ = process.communicate(timeout=SECONDS)
    assert re.findall("^error: .*", output, re.M) == [
        "error: site hospital-3, round 1: the loss is nan; training diverged, lower --lr"
    ]
    assert re.search(r"exitcode *: 8 ", output)


def begin(tmp_path: Path) -> "subprocess.Popen[str]":
    """A long run of two ranks that has come through its first rounds."""
    process = start(2, *PROGRAM, *DIGITS, "--model", "mlp", "--rounds", "100000", "--out", str(tmp_path / "run"))
    lines = tmp_path / "run" / "metrics.jsonl"
    end = time.monotonic() + SECONDS
    while not (lines.exists() and lines.stat().st_size):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    return process


def test_ctrl_c_leaves_a_checkpoint_of_both_ranks(tmp_path: Path) -> None:
    process = begin(tmp_path)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=SECONDS)
    assert len(re.findall("^error: stopped after .*--resume$", output, re.M)) == 1
    manifest = json.loads((tmp_path / "run" / "checkpoint.json").read_text())
    assert sorted(name for part in manifest["parts"] for name in part["sites"]) == [
        f"hospital-{n}" for n in range(1, 5)
    ]


def test_a_killed_rank_ends_the_others(tmp_path: Path) -> None:
    process = begin(tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    second = next(pid for pid in children if b"\0RANK=1\0" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(int(second), signal.SIGKILL)
    output, _ = process.communicate(timeout=SECONDS)
    lost = re.search(r"^error: process 0 of 2 lost another one \((.*)\), whose own.*--resume$", output, re.M)
    assert lost, output
    assert ".cc:" not in lost[1]


def test_without_torchrun_it_says_how_to_start(tmp_path: Path) -> None:
    command = [sys.executable, *PROGRAM, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 3
    assert re.fullmatch("error: --engine torchrun: RANK is not set.*torchrun --nproc-per-node.*\n", done.stderr)
