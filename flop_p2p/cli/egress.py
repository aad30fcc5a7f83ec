"""`flop-p2p egress`: what left this site, and whether the log of it is what was once written."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flop_p2p.cli.target import state_of

if TYPE_CHECKING:
    from flop_p2p.node.egress_verify import Traffic

app = typer.Typer(help="The log of every message that left a site.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    pass


@app.command("verify")
def verify(
    target: Annotated[Path, typer.Argument(metavar="SITE", help="site.toml or state directory of a site")],
    peer: Annotated[
        list[Path] | None,
        typer.Option("--peer", help="state directory of a neighbour, or its receipts.jsonl; may be repeated"),
    ] = None,
) -> None:
    """Check that nobody has edited, cut or rebuilt the log, and that only bodies of the agreed schema left."""
    from flop_p2p.node.egress_verify import verify as verify_log

    console = Console(highlight=False, soft_wrap=True)

    def passed(check: str, result: str) -> None:
        console.print(Text.assemble(("ok ", "green"), f"{check:<8} ", result))

    folder, name = state_of(target)
    traffic = verify_log(folder, peer or (), name, passed)
    console.print(_table(traffic), soft_wrap=False)


def _table(traffic: "Mapping[str, Traffic]") -> Table:
    """What left, a row each receiver."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("to", no_wrap=True)
    for column in ("messages", "bodies", "bytes"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("first (UTC)")
    table.add_column("last (UTC)")
    for receiver, each in sorted(traffic.items()):
        counts = (f"{count:,}" for count in (each.messages, each.bodies, each.size))
        table.add_row(Text(receiver), *counts, each.first[:19].replace("T", " "), each.last[:19].replace("T", " "))
    return table
