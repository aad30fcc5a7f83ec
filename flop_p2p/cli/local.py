"""`flop-p2p local`: a federation of real daemons on this machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from flop_p2p.cli.options import GOSSIP_FLAGS, SHARED_FLAGS, experiment_options
from flop_p2p.cli.simulate import summary_table
from flop_p2p.config import ExperimentSettings

if TYPE_CHECKING:
    from flop_p2p.local.processes import Snapshot

Show = Callable[[dict[str, "Snapshot | None"]], None]


@experiment_options({"--method": "method", "--topology": "topology.name", **SHARED_FLAGS, **GOSSIP_FLAGS})
def local(
    settings: ExperimentSettings,
    out: Annotated[Path | None, typer.Option(help="run directory to write; default runs/local-<time>")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what is in --out, or begin it")] = False,
) -> None:
    """Run real daemons on this machine: a process a hospital, ZeroMQ on loopback, encryption on."""
    if resume and out is None:
        raise typer.BadParameter("--resume needs --out, the directory of the run to go on with")
    from flop_p2p.local import run_local
    from flop_p2p.report.page import write_page
    from flop_p2p.report.run import run_schedule, write_pictures
    from flop_p2p.simulation import load_data

    console = Console()
    directory = out or Path("runs") / f"local-{datetime.now():%Y%m%d-%H%M%S}"
    with console.status("reading the data"):
        data = load_data(settings)
    with _watching(console, settings.training.rounds) as show:
        summary = run_local(settings, directory, data=data, resume=resume, watch=show)
    with console.status("drawing"):
        write_pictures(directory, settings, data, run_schedule(settings, data, summary))
        write_page(directory, summary)
    console.print(summary_table(summary))
    console.print(_whole(summary), highlight=False)
    console.print(_traffic(summary), highlight=False)
    console.print(f"written to {directory}", soft_wrap=True, markup=False)


@contextmanager
def _watching(console: Console, rounds: int) -> Iterator[Show]:
    """One live table of all daemons on a terminal, a line a completed round elsewhere."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            latest: dict[str, Snapshot] = {}

            def redraw(snapshots: dict[str, "Snapshot | None"]) -> None:
                latest.update({name: each for name, each in snapshots.items() if each is not None})
                rows = {name: each or _ended(latest.get(name)) for name, each in snapshots.items()}
                live.update(_table(rows, rounds))

            yield redraw
        return
    printed = 0

    def report(snapshots: dict[str, "Snapshot | None"]) -> None:
        nonlocal printed
        known = [each for each in snapshots.values() if each is not None]
        completed = min((each["completed"] for each in known), default=0)
        if completed > printed:
            printed = completed
            accuracies = [each["accuracy"] for each in known if each["accuracy"] is not None]
            mean = f", accuracy {sum(accuracies) / len(accuracies):.3f}" if accuracies else ""
            console.print(f"round {completed}/{rounds} complete at every hospital{mean}", highlight=False)

    yield report


def _ended(latest: "Snapshot | None") -> "Snapshot | None":
    """What a daemon said last that answers no more."""
    return None if latest is None else {**latest, "phase": "ended", "waiting_for": []}


def _table(snapshots: dict[str, "Snapshot | None"], rounds: int) -> Table:
    table = Table(title="one row a hospital: a process of its own, linked by encrypted sockets")
    for column in ("hospital", "round", "phase", "neighbours", "absent", "loss", "accuracy", "sent", "received"):
        table.add_column(column, justify="left" if column in ("hospital", "phase", "neighbours") else "right")
    for name, each in snapshots.items():
        if each is None:
            table.add_row(name, "–", "starting", *["–"] * 6)
            continue
        phase = f"waits for {', '.join(each['waiting_for'])}" if each["waiting_for"] else each["phase"]
        table.add_row(
            name,
            f"{each['round']}/{rounds}",
            phase,
            "  ".join(_neighbour(other, link) for other, link in each["neighbours"].items()),
            str(each["absences"]),
            _number(each["train_loss"]),
            _number(each["accuracy"]),
            f"{each['bytes']['sent'] / 1e6:,.1f} MB",
            f"{each['bytes']['received'] / 1e6:,.1f} MB",
        )
    return table


def _neighbour(name: str, link: dict[str, Any]) -> str:
    colour = {"connected": "green", "left": "cyan", "connecting": "yellow"}.get(link["state"], "red")
    return f"[{colour}]●[/] {name}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _whole(summary: dict[str, Any]) -> str:
    """Whether all took part in everything, and else who missed what."""
    missed = []
    for site, node in summary["nodes"].items():
        missed += [f"{site} mixed without {other} in {len(rounds)}" for other, rounds in node["absences"].items()]
        if node["skipped_rounds"]:
            missed.append(f"{site} itself missed {len(node['skipped_rounds'])}")
    if not missed:
        return "every hospital took part in every round"
    return f"not every hospital took part in every round: {'; '.join(missed)}"


def _traffic(summary: dict[str, Any]) -> str:
    busiest = max(summary["nodes"], key=lambda name: sum(summary["nodes"][name]["bytes"].values()))
    return (
        f"{summary['bytes']['total'] / 1e6:,.1f} MB sent by all in {summary['seconds']['total']:.1f} s; "
        f"{busiest} sent and received most, {summary['bytes']['busiest_site'] / 1e6:,.1f} MB"
    )
