"""`flop-p2p simulate`: one method, one topology, one seed."""

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from flop_p2p.cli.options import BODIES_IN, SHARED_FLAGS, WORKERS, experiment_options
from flop_p2p.config import ExperimentSettings
from flop_p2p.errors import ConfigError, FlopError

if TYPE_CHECKING:
    from flop_p2p.simulation import RoundReport
    from flop_p2p.simulation.ranks import Ranks

Engine = Literal["workers", "torchrun"]
ENGINE = "workers: processes of this machine; torchrun: those that torchrun started, on one machine or many"


@experiment_options({"--method": "method", "--topology": "topology.name", **SHARED_FLAGS})
def simulate(
    settings: ExperimentSettings,
    out: Annotated[Path | None, typer.Option(help="run directory to write; default runs/<method>-<time>")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what is in --out, or begin it")] = False,
    workers: Annotated[int, typer.Option(min=0, help=WORKERS)] = 0,
    bodies_in: Annotated[Path | None, typer.Option(help=BODIES_IN)] = None,
    engine: Annotated[Engine, typer.Option(help=ENGINE)] = "workers",
) -> None:
    """Simulate one method over the hospitals of a data set."""
    if resume and out is None:
        raise typer.BadParameter("--resume needs --out, the directory of the run to go on with")
    with _ranks(engine, settings.device, workers) as ranks:
        _simulate(settings, ranks, out, resume, workers, bodies_in)


def _simulate(
    settings: ExperimentSettings, ranks: "Ranks", out: Path | None, resume: bool, workers: int, bodies_in: Path | None
) -> None:
    from flop_p2p.simulation import load_data, run_simulation

    console = Console(quiet=ranks.rank > 0)
    name = ranks.of_first(lambda: f"{settings.method}-{datetime.now():%Y%m%d-%H%M%S}")
    directory = out or Path("runs") / name
    with console.status("reading the data"), ranks.together():
        data = load_data(settings)
    with _progress(console, settings) as on_round:
        summary = run_simulation(
            settings,
            directory,
            data=data,
            resume=resume,
            workers=workers,
            bodies_in=bodies_in,
            ranks=ranks,
            on_round=on_round,
            on_remark=lambda remark: console.print(remark, soft_wrap=True, markup=False, highlight=False),
        )
    if ranks.rank > 0:
        return
    from flop_p2p.report.page import write_page
    from flop_p2p.report.run import run_schedule, write_pictures
    from flop_p2p.topology.analysis import mean_reached

    with console.status("drawing"):
        schedule = run_schedule(settings, data, summary)
        write_pictures(directory, settings, data, schedule)
        write_page(directory, summary)
    console.print(summary_table(summary))
    if summary["privacy"] is not None:
        console.print(privacy_line(summary["privacy"]), soft_wrap=True, highlight=False)
    if schedule is not None and not schedule.doubly_stochastic:
        console.print(mean_reached(schedule), highlight=False)
    console.print(f"written to {directory}", soft_wrap=True, markup=False)


@contextmanager
def _ranks(engine: Engine, device: str, workers: int) -> "Iterator[Ranks]":
    """The processes of the run. What goes wrong at all of them is told by the first."""
    if engine == "workers":
        from flop_p2p.simulation.ranks import ALONE

        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
            raise ConfigError("torchrun started several processes of the same run; add --engine torchrun")
        yield ALONE
        return
    if workers > 1:
        raise ConfigError(f"--workers {workers}: not with --engine torchrun; start more processes instead")
    from flop_p2p.simulation.torchrun import joined

    with joined(device) as ranks:
        try:
            yield ranks
        except FlopError as error:
            atexit.register(_end_at_once, error.exit_code)
            if ranks.leave_to_first():
                raise typer.Exit(error.exit_code) from None
            raise


def _end_at_once(exit_code: int) -> None:
    """Spare the process its tidying up: with connections still open it may abort, and with another exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


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


def privacy_line(privacy: dict[str, Any]) -> str:
    """What training has spent of the privacy budget, in one sentence."""
    spent = [site["epsilon"] for site in privacy["sites"].values()]
    stopped = [site["epsilon"] for site in privacy["sites"].values() if site["stopped"] is not None]
    never = stopped.count(0)  # not even one round fits into the budget
    parts = [
        f"differential privacy of a {privacy['unit']}: epsilon {min(spent):.2f} to {max(spent):.2f} at delta "
        f"{privacy['delta']:g}"
    ]
    if len(stopped) > never:
        parts.append(f"{len(stopped) - never} of {len(spent)} spent their budget and stopped sending")
    if never:
        parts.append(f"{never} of {len(spent)} never trained nor sent, for one round would exceed the budget")
    return "; ".join(parts)
