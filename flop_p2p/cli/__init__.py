"""The command line: one file a command. Heavy libraries are imported by the command that needs them."""

import sys

import typer
from rich.console import Console
from rich.markup import escape

from flop_p2p import __version__
from flop_p2p.errors import FlopError

app = typer.Typer(
    name="flop-p2p",
    help="Peer-to-peer federated learning for hospitals: the body is shared, the head stays at home.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"flop-p2p {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    pass


def main() -> None:
    """Run the command line; an error of ours is one line and its exit code, never a traceback."""
    from flop_p2p.cli import compare, data, simulate, topology

    app.command("simulate")(simulate.simulate)
    app.command("compare")(compare.compare)
    app.add_typer(data.app, name="data")
    app.add_typer(topology.app, name="topology")
    try:
        app()
    except FlopError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(error.exit_code)
