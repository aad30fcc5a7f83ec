"""`flop-p2p simulate`: one method, one topology, one seed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from flop_p2p.cli.options import BODIES_IN, SHARED_FLAGS, WORKERS, experiment_options
from flop_p2p.config import ExperimentSettings

if TYPE_CHECKING:
    from flop_p2p.simulation import RoundReport


@experiment_options({"--method": "method", "--topology": "topology.name", **SHARED_FLAGS})
def simulate(
    settings: ExperimentSettings,
    out: Annotated[Path | None, typer.Option(help="run directory to write; default runs/<method>-<time>")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what is in --out, or begin it")] = False,
    workers: Annotated[int, typer.Option(min=0, help=WORKERS)] = 0,
    bodies_in: Annotated[Path | None, typer.Option(help=BODIES_IN)] = None,
) -> None:
    """Simulate one method over the hospitals of a data set."""
    if resume and out is None:
        raise typer.BadParameter("--resume needs --out, the directory of the run to go on with")
    from flop_p2p.report.page import write_page
    from flop_p2p.report.run import run_schedule, write_pictures
    from flop_p2p.simulation import load_data, run_simulation
    from flop_p2p.topology.analysis import mean_reached

    console = Console()
    directory = out or Path("runs") / f"{settings.method}-{datetime.now():%Y%m%d-%H%M%S}"
    with console.status("reading the data"):
        data = load_data(settings)
    with _progress(console, settings) as on_round:
        summary = run_simulation(
            settings, directory, data=data, resume=resume, workers=workers, bodies_in=bodies_in, on_round=on_round
        )
    with console.status("drawing"):
        schedule = run_schedule(settings, data, summary)
        write_pictures(directory, settings, data, schedule)
        write_page(directory, summary)
    console.print(summary_table(summary))
    if schedule is not None and not schedule.doubly_stochastic:
        console.print(mean_reached(schedule), highlight=False)
    console.print(f"written to {directory}", soft_wrap=True, markup=False)


@contextmanager
def _progress(console: Console, settings: ExperimentSettings) -> "Iterator[Callable[[RoundReport], None]]":
    """A bar on a terminal, one line a round elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[accuracy]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(settings.method, total=settings.training.rounds, accuracy="")

        def show(report: "RoundReport") -> None:
            accuracy = "" if report.accuracy is None else f"accuracy {report.accuracy:.3f}"
            progress.update(task, completed=report.round, total=report.rounds, accuracy=accuracy)
            if not console.is_terminal:
                console.print(f"round {report.round}/{report.rounds} {accuracy} {report.seconds:.1f} s")

        yield show


def summary_table(summary: dict[str, Any]) -> Table:
    """Mean and worst site of each figure."""
    where = f" on {summary['topology']}" if summary["topology"] else ""
    table = Table(
        title=f"{summary['method']}{where}: {summary['sites']} sites, {summary['rounds']} rounds, "
        f"{summary['weighting']} weighting, {summary['head_loss']}, seed {summary['seed']}"
    )
    table.add_column("own test split")
    for column in ("mean over sites", "worst site", "pooled test, mean"):
        table.add_column(column, justify="right")
    for name, values in summary["metrics"].items():
        pooled = summary["pooled_test"][name]
        worst = max if name == "calibration_error" else min  # the others are better the higher
        known = [value for value in values["per_site"].values() if value is not None]
        figures = (values["mean"], worst(known, default=None), pooled["mean"])
        table.add_row(name.replace("_", " "), *("–" if value is None else f"{value:.3f}" for value in figures))
    return table
