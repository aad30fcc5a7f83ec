"""`flop-p2p compare`: several methods, topologies and seeds on the same data."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from flop_p2p.cli.options import BODIES_IN, SHARED_FLAGS, WORKERS, experiment_options
from flop_p2p.config import ExperimentSettings

if TYPE_CHECKING:
    from flop_p2p.comparison import Run, Watcher
    from flop_p2p.simulation import RoundReport

COMPARISON_FLAGS = {
    "--methods": "comparison.methods",
    "--topologies": "comparison.topologies",
    "--seeds": "comparison.seeds",
    "--lr-grid": "comparison.lr_grid",
    "--target-accuracy": "comparison.target_accuracy",
}


@experiment_options({**COMPARISON_FLAGS, **SHARED_FLAGS})
def compare(
    settings: ExperimentSettings,
    out: Annotated[Path | None, typer.Option(help="directory to write; default runs/compare-<time>")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what is in --out, or begin it")] = False,
    workers: Annotated[int, typer.Option(min=0, help=WORKERS)] = 0,
    bodies_in: Annotated[Path | None, typer.Option(help=BODIES_IN)] = None,
) -> None:
    """Compare methods and topologies over several seeds, all on the same data."""
    if resume and out is None:
        raise typer.BadParameter("--resume needs --out, the directory of the comparison to go on with")
    from flop_p2p.comparison import compare as run_comparison
    from flop_p2p.report.curves import draw_comparison
    from flop_p2p.report.tables import comparison_markdown, comparison_tables
    from flop_p2p.simulation import run_simulation
    from flop_p2p.writing import write_text

    console = Console(highlight=False)
    directory = out or Path("runs") / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
    with _watching(console) as watcher:
        simulate = functools.partial(run_simulation, workers=workers, bodies_in=bodies_in)
        comparison = run_comparison(settings, directory, resume=resume, watcher=watcher, simulate=simulate)
    write_text(directory / "comparison.md", comparison_markdown(comparison))
    pictures = draw_comparison(comparison, directory)
    console.print(comparison_tables(comparison, console.width))
    names = ", ".join(("comparison.json", "comparison.md", *(path.name for path in pictures)))
    console.print(f"\nwritten to {directory}: {names}", soft_wrap=True, markup=False)


@contextmanager
def _watching(console: Console) -> "Iterator[Watcher]":
    """A bar over all rounds of all runs on a terminal, one line a run elsewhere."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield _Display(progress)


class _Display:
    """Shows the runs on a progress bar, or as plain lines where there is no terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("checking data, models and topologies", total=None, state="")
        self._runs = self._ended = 0
        self._rounds = 0  # of one run
        self._total = self._before = 0  # rounds of all runs, and of those that ended

    def plan(self, runs: int, rounds: int) -> None:
        self._runs, self._rounds, self._total = runs, rounds, runs * rounds
        self._progress.reset(self._task, total=self._total)

    def start(self, run: "Run") -> None:
        self._progress.update(self._task, description=f"{self._ended + 1}/{self._runs} {run.name}", state="")

    def round(self, run: "Run", report: "RoundReport") -> None:  # noqa: ARG002
        accuracy = "" if report.accuracy is None else f" acc {report.accuracy:.3f}"
        state = f"round {report.round}/{report.rounds}{accuracy}"
        self._progress.update(self._task, completed=self._before + report.round, state=state)

    def finish(self, run: "Run", summary: dict[str, Any] | None, kept: bool) -> None:
        self._ended += 1
        rounds = summary["rounds"] if summary is not None and not kept else 0
        self._before += rounds
        self._total -= self._rounds - rounds  # rounds that were not run must not make the rest look quick
        self._progress.update(self._task, completed=self._before, total=self._total)
        if self._progress.disable:
            line = f"{self._ended}/{self._runs} {run.name}: {_outcome(summary, kept)}"
            self._progress.console.print(line, markup=False, soft_wrap=True)


def _outcome(summary: dict[str, Any] | None, kept: bool) -> str:
    if summary is None:
        return "failed"
    accuracy = f"accuracy {summary['metrics']['accuracy']['mean']:.3f} after round {summary['rounds']}"
    return f"{accuracy}, kept from before" if kept else f"{accuracy}, {summary['seconds']['total']:.1f} s"
