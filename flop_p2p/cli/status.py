"""`flop-p2p status`: asks the running node of a site how it is."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flop_p2p.cli.target import state_of
from flop_p2p.errors import NodeError

WATCH_SECONDS = 1.0
SUMMARY = "summary.json"  # what a node leaves in its state directory at its end
GOODBYE_SECONDS = 5  # that a node may take for it
COLOURS = {"connected": "green", "connecting": "yellow", "left": "cyan"}  # all else is red

Snapshot = Mapping[str, Any]  # as described in `flop_p2p.node.status`


def status(
    target: Annotated[Path, typer.Argument(metavar="SITE", help="site.toml or state directory of a site")],
    as_json: Annotated[bool, typer.Option("--json", help="print the answer as JSON")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="ask again every second until Ctrl-C or the last round")
    ] = False,
) -> None:
    """Show the round, the neighbours, the bytes and the figures of a site's running node."""
    from flop_p2p.node.status import ask

    folder, _ = state_of(target)
    console = Console(highlight=False)
    if not watch:
        snapshot = ask(folder)
        if as_json:
            typer.echo(json.dumps(snapshot))
        else:
            console.print(status_page(snapshot))
    elif as_json:
        _every_second(folder, lambda snapshot: typer.echo(json.dumps(snapshot)))
    else:
        with Live(console=console, auto_refresh=False) as live:
            _every_second(folder, lambda snapshot: live.update(status_page(snapshot), refresh=True))


def _every_second(folder: Path, show: Callable[[Snapshot], None]) -> None:
    """Ask and show until Ctrl-C, or until the node has done all its rounds."""
    from flop_p2p.node.status import ask

    answered = False
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                snapshot = ask(folder)
            except NodeError:
                if answered and _has_finished(folder):
                    return
                raise
            answered = True
            show(snapshot)
            time.sleep(WATCH_SECONDS)


def _has_finished(folder: Path) -> bool:
    """Whether the node that answers no more has done all its rounds; it writes so a moment later."""
    for _ in range(GOODBYE_SECONDS):
        with contextlib.suppress(OSError, ValueError):
            if json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["complete"]:
                return True
        time.sleep(1.0)
    return False


def status_page(snapshot: Snapshot) -> Group:
    """The answer of a node for people: its own figures, then a row each neighbour."""
    own = Table(box=None, show_header=False, pad_edge=False)
    for key, value in _figures(snapshot):
        own.add_row(key, Text(value))
    title = Text(f"{snapshot['name']} in {snapshot['federation']}, revision {snapshot['revision']}", style="bold")
    return Group(title, own, Text(), _neighbours(snapshot["neighbours"]))


def _figures(snapshot: Snapshot) -> list[tuple[str, str]]:
    done = " (finished)" if snapshot["finished"] else ""
    return [
        ("round", f"{snapshot['round']} of {snapshot['rounds']}, {snapshot['phase']}{done}"),
        ("waiting for", ", ".join(snapshot["waiting_for"]) or "nobody"),
        ("training loss", _number(snapshot["train_loss"])),
        ("accuracy", _number(snapshot["accuracy"])),
        ("balanced accuracy", _number(snapshot["balanced_accuracy"])),
        ("validation accuracy", _number(snapshot["validation_accuracy"])),
        *_privacy(snapshot["privacy"]),
        ("sent, received", f"{_bytes(snapshot['bytes']['sent'])}, {_bytes(snapshot['bytes']['received'])}"),
        ("seconds", ", ".join(f"{purpose} {spent:.1f}" for purpose, spent in snapshot["seconds"].items())),
        ("absences", f"{snapshot['absences']} of neighbours; this site caught up {snapshot['catch_ups']} times"),
        ("masking", _masking(snapshot)),
    ]


def _privacy(privacy: Snapshot | None) -> list[tuple[str, str]]:
    """What is spent of the privacy budget, where training is differentially private."""
    if privacy is None:
        return []
    budget = "" if privacy["budget"] is None else f" of {privacy['budget']:g}"
    stopped = "" if privacy["stopped"] is None else f"; only receives since round {privacy['stopped']}"
    return [
        ("epsilon", f"{privacy['epsilon']:.3f}{budget} at delta {privacy['delta']:g}, a {privacy['unit']}{stopped}")
    ]


def _masking(snapshot: Snapshot) -> str:
    skipped = f", {snapshot['masked_skips']} rounds skipped" if snapshot["masked_skips"] else ""
    return f"{snapshot['masking']}{skipped}"


def _neighbours(neighbours: Mapping[str, Snapshot]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("neighbour")
    table.add_column("state")
    for column in ("round", "heard", "delay", "sent", "received", "miss", "drop"):  # short: 80 columns hold them
        table.add_column(column, justify="right", no_wrap=True)
    for name, each in sorted(neighbours.items()):
        reason = f": {each['reason']}" if each["reason"] else ""
        table.add_row(
            Text(name),
            Text(each["state"] + reason, style=COLOURS.get(each["state"], "red")),
            str(each["round"]),
            "–" if each["last_contact"] is None else f"{max(0.0, time.time() - each['last_contact']):.1f} s",
            "–" if each["latency"] is None else f"{1000 * each['latency']:.1f} ms",
            _bytes(each["sent_bytes"]),
            _bytes(each["received_bytes"]),
            str(each["absences"]),
            str(each["dropped_frames"]),
        )
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count < 1e9 else f"{count / 1e9:,.2f} GB"
