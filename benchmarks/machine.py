"""What the benchmarks share: the machine's description, the folder of the data, and the memory of a process tree."""

import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Usage:
    """A command that ran to its end.

    seconds: until its end; until the file that was waited for was there, if one was.
    peak_bytes: of all its processes together; memory that they share counts once.
    """

    seconds: float
    peak_bytes: int


def describe() -> dict[str, Any]:
    """Processor, cores, memory and versions."""
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    packages = ("flop-p2p", "torch", "numpy", "scipy", "pyzmq", "cryptography")
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def data_folder(name: str) -> Path | None:
    """The folder ``name`` of $FLOP_P2P_DATA; None where there is none."""
    folder = Path(os.environ.get("FLOP_P2P_DATA", "")) / name
    return folder if os.environ.get("FLOP_P2P_DATA") and folder.is_dir() else None


def show(figures: Mapping[str, Any]) -> None:
    """Print figures by name, one a line."""
    for name, value in figures.items():
        print(f"{name:60} {value:.4g}" if isinstance(value, float) else f"{name:60} {value}")


def memory() -> int:
    """The proportional set size of this process, bytes."""
    return _proportional_bytes(os.getpid())


def peak_memory(command: Sequence[str], until: Path | None = None) -> Usage:
    """Run ``command``, whose output is dropped, and watch the proportional set size of it and its children.

    Args:
        until: a file whose appearance stops the clock.

    Raises:
        RuntimeError: it failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak, there = 0, 0.0
    while process.poll() is None:
        if until is not None and not there and until.exists():
            there = time.perf_counter() - start
        peak = max(peak, sum(_proportional_bytes(each) for each in _tree(process.pid)))
        time.sleep(SAMPLE_SECONDS)
    seconds = there or time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}: {process.communicate()[1]}")
    return Usage(seconds, peak)


def _tree(root: int) -> list[int]:
    children = [int(each) for line in _lines(f"/proc/{root}/task/{root}/children") for each in line.split()]
    return [root, *(each for child in children for each in _tree(child))]


def _proportional_bytes(process: int) -> int:
    return sum(1024 * int(line.split()[1]) for line in _lines(f"/proc/{process}/smaps_rollup") if line[:4] == "Pss:")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # the process has ended
        return []
