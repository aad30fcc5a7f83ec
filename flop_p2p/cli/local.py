"""`flop-p2p local`: a federation of real daemons on this machine."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from flop_p2p.cli.options import GOSSIP_FLAGS, SHARED_FLAGS, experiment_options
from flop_p2p.cli.simulate import summary_table
from flop_p2p.config import ExperimentSettings

if TYPE_CHECKING:
    from flop_p2p.local.progress import DaemonState

Show = Callable[[Mapping[str, "DaemonState"]], None]


@experiment_options({"--method": "method", "--topology": "topology.name", **SHARED_FLAGS, **GOSSIP_FLAGS})
def local(
    settings: ExperimentSettings,
    out: Annotated[Path | None, typer.Option(help="run directory to write; default runs/local-<time>")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what is in --out, or begin it")] = False,
) -> None:
    """Run real daemons on this machine: a process a hospital, ZeroMQ on loopback, encryption on.

    Takes the methods p2p-flop, p2p-flop-alt and flop; the other methods are for simulate.
    """
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
    """A line for a daemon that failed; a live table of all on a terminal, a line a completed round elsewhere."""
    lines = Lines(rounds)
    if not console.is_terminal:

        def report(states: Mapping[str, "DaemonState"]) -> None:
            for line in lines.new(states):
                console.print(line, highlight=False, markup=False, soft_wrap=True)

        yield report
        return
    with Live(console=console, refresh_per_second=4) as live:

        def redraw(states: Mapping[str, "DaemonState"]) -> None:
            for line in lines.failures(states):
                console.print(line, highlight=False, markup=False)
            live.update(_table(states, rounds))

        yield redraw


class Lines:
    """What there is to print of a local federation that runs, each line once.

    Args:
        rounds: of the whole run.
    """

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._printed = 0
        self._failed: set[str] = set()

    def new(self, states: Mapping[str, "DaemonState"]) -> list[str]:
        """Daemons that failed, then rounds that are complete at every hospital that has not failed before."""
        lines = self.failures(states)
        completed = min((each.completed for each in states.values() if not each.failed), default=self._printed)
        for number in range(self._printed + 1, completed + 1):
            there = [each for each in states.values() if each.completed >= number]
            where = "every hospital" if len(there) == len(states) else f"{len(there)} of {len(states)} hospitals"
            accuracies = [each.accuracies[number] for each in there if number in each.accuracies]
            mean = f", accuracy {sum(accuracies) / len(accuracies):.3f}" if accuracies else ""
            lines.append(f"round {number}/{self._rounds} complete at {where}{mean}")
        self._printed = max(self._printed, completed)
        return lines

    def failures(self, states: Mapping[str, "DaemonState"]) -> list[str]:
        """Daemons that ended with an error since the last call."""
        fresh = {name: each for name, each in states.items() if each.failed and name not in self._failed}
        self._failed |= set(fresh)
        return [
            f"{name} ended with exit code {each.exit_code} after {each.completed} of {self._rounds} rounds, "
            f"see {each.site.log}"
            for name, each in fresh.items()
        ]


def _table(states: Mapping[str, "DaemonState"], rounds: int) -> Table:
    table = Table(title="one row a hospital: a process of its own, linked by encrypted sockets")
    for column in ("hospital", "round", "phase", "neighbours", "absent", "loss", "accuracy", "sent", "received"):
        table.add_column(column, justify="left" if column in ("hospital", "phase", "neighbours") else "right")
    for name, state in states.items():
        each, phase = state.answer, _phase(state, rounds)
        if each is None:
            table.add_row(escape(name), f"{state.completed}/{rounds}" if state.completed else "–", phase, *["–"] * 6)
            continue
        table.add_row(
            escape(name),
            f"{each['round'] if state.exit_code is None else state.completed}/{rounds}",
            phase,
            "  ".join(_neighbour(other, link) for other, link in each["neighbours"].items()),
            str(each["absences"]),
            _number(each["train_loss"]),
            _number(each["accuracy"]),
            f"{each['bytes']['sent'] / 1e6:,.1f} MB",
            f"{each['bytes']['received'] / 1e6:,.1f} MB",
        )
    return table


def _phase(state: "DaemonState", rounds: int) -> str:
    """What a daemon does, or how it ended."""
    if state.failed:
        return f"[red]ended with exit code {state.exit_code}[/]"
    if state.exit_code == 0:
        return "finished" if state.completed >= rounds else "[red]stopped[/]"
    if state.answer is None:
        return "starting"
    waits = ", ".join(state.answer["waiting_for"])
    return f"waits for {escape(waits)}" if waits else str(state.answer["phase"])


def _neighbour(name: str, link: dict[str, Any]) -> str:
    colour = {"connected": "green", "left": "cyan", "connecting": "yellow"}.get(link["state"], "red")
    return f"[{colour}]●[/] {escape(name)}"


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
