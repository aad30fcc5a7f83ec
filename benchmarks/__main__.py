"""Run all benchmarks, each in a process of its own, and write `results.json` and `results.md` beside this file.

    python benchmarks [NAME ...] [--small] [--out FOLDER]

With names only these are run again; the figures of the others stay. ``--small`` takes a minute or two and shows that
they work; its times say nothing and are never kept.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe

HERE = Path(__file__).parent
NAMES = ("simulation", "scale", "batched", "torchrun", "wire", "masking", "rounds", "daemons", "compression")
RUN = """
import importlib, json, sys
print(json.dumps(importlib.import_module(sys.argv[1]).measure(sys.argv[2] == "small")))
"""


def run(name: str, small: bool) -> dict[str, Any]:
    """The figures of one benchmark.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-c", RUN, name, "small" if small else "whole"]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmark {name} failed with exit code {done.returncode}")
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def markdown(results: dict[str, Any]) -> str:
    """All figures as tables."""
    lines = ["# Measured", "", "Written by `make bench`; [README.md](README.md) says what each figure means.", ""]
    for name, found in results.items():
        machine, versions = found["machine"], found["machine"]["versions"]
        lines += [
            f"## {name}",
            "",
            f"{found['date']}, {machine['processor']}, {machine['cores']} cores, "
            f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}, Python {machine['python']}, "
            + ", ".join(f"{package} {version}" for package, version in versions.items()),
            "",
            "| figure | value |",
            "|---|---:|",
            *(f"| {key.replace('_', ' ')} | {_text(value)} |" for key, value in found["figures"].items()),
            "",
        ]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def main() -> None:
    """Run what is asked for and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default all")
    parser.add_argument("--small", action="store_true", help="only to see that they work")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if arguments.small:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), {name: run(name, small=True) for name in arguments.names or NAMES})
        return
    for name in arguments.names or NAMES:
        write(arguments.out, {name: run(name, small=False)})


def write(out: Path, figures: dict[str, dict[str, Any]]) -> None:
    """Put these figures into the files in ``out``, in place of older ones of the same benchmarks."""
    path = out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name, found in figures.items():
        results[name] = {"date": time.strftime("%Y-%m-%d"), "machine": describe(), "figures": found}
    path.write_text(json.dumps({name: results[name] for name in NAMES if name in results}, indent=1) + "\n")
    (out / "results.md").write_text(markdown(results))


if __name__ == "__main__":
    main()
