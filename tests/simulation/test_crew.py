"""One process or several: the same figures, and a clear end when a worker fails or the parent dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from run_files import lines_without_seconds, models

from flop_p2p.errors import RunError, TrainingError
from flop_p2p.simulation import Simulation, load_data, run_simulation
from flop_p2p.simulation.crew import Forked, usable_workers

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")


@pytest.mark.parametrize(
    "overrides",
    [
        {"training__momentum": 0.9, "topology__name": "base:1"},
        {"training__optimizer": "adam", "training__optimizer_state": "reset", "data__partition": "dirichlet:0.5"},
        {"method": "flop", "training__participation": 0.5, "training__augmentation": ["crop:2"], "model__name": None},
        {"method": "pooled"},
    ],
    ids=["momentum", "reset", "participation", "pooled"],
)
def test_any_number_of_workers_gives_the_same_models(
    experiment: Any, tmp_path: Path, overrides: dict[str, Any]
) -> None:
    settings = experiment(**overrides)
    for workers in (1, 2, 3):
        run_simulation(settings, tmp_path / str(workers), workers=workers)
    alone = tmp_path / "1"
    for workers in ("2", "3"):
        assert lines_without_seconds(tmp_path / workers) == lines_without_seconds(alone)
        assert models(tmp_path / workers) == models(alone)


def test_bodies_in_a_file_are_the_same_and_leave_no_file_behind(experiment: Any, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    run_simulation(experiment(), tmp_path / "memory", workers=2)
    run_simulation(experiment(), tmp_path / "file", workers=2, bodies_in=tmp_path / "scratch")
    assert models(tmp_path / "file") == models(tmp_path / "memory")
    assert list((tmp_path / "scratch").iterdir()) == []
    with pytest.raises(RunError, match="nowhere"):
        run_simulation(experiment(), tmp_path / "none", bodies_in=tmp_path / "nowhere")
    assert not (tmp_path / "none").exists()


def test_an_error_in_a_worker_is_the_error_of_the_run(experiment: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"site hospital-\d, round \d: .*lower --lr"):
        run_simulation(experiment(training__lr=1e9), tmp_path / "run", workers=2)


def test_a_worker_that_is_killed_ends_the_run_with_a_line(experiment: Any) -> None:
    settings = experiment()
    data = load_data(settings)
    simulation = Simulation(settings, data, data.sites, workers=2)
    assert isinstance(simulation.crew, Forked)
    assert simulation.run_round(lambda: False)
    os.kill(simulation.crew.processes[0].pid or 0, signal.SIGKILL)
    with pytest.raises(RunError, match=r"worker process ended with exit code -9.*--workers"):
        simulation.round_lines()
    assert simulation.crew.processes == []


def test_workers_end_with_the_process_that_forked_them(tmp_path: Path) -> None:
    flags = "--rounds 2000 --limit-images 100 --sites 4 --model mlp --evaluate-every 0 --workers 3 --out"
    command = [sys.executable, "-m", "flop_p2p", "simulate", *flags.split(), str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + 60
    while len(workers := children.read_text().split()) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    assert len(workers) == 3
    process.kill()
    process.wait()
    while any(running(worker) for worker in workers) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [worker for worker in workers if running(worker)]


def test_a_signal_to_all_processes_leaves_a_checkpoint(tmp_path: Path) -> None:
    flags = "--rounds 5000 --limit-images 100 --sites 4 --model mlp --evaluate-every 50 --workers 2 --out"
    command = [sys.executable, "-m", "flop_p2p", "simulate", *flags.split(), str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert b"--resume" in errors
    assert (tmp_path / "run" / "checkpoint.json").exists()


def running(process: str) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_how_many_workers() -> None:
    cores = len(os.sched_getaffinity(0))
    assert usable_workers(0, 1000, 1, CPU) == cores
    assert usable_workers(5, 3, 1, CPU) == 3
    assert usable_workers(0, 8, 4, CPU) == 1
    assert usable_workers(0, 8, 1, torch.device("cuda")) == 1
    with pytest.raises(RunError, match="--workers 2"):
        usable_workers(2, 8, 4, CPU)
