"""The command line: one file a command. Heavy libraries are imported by the command that needs them."""

import functools
import sys
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from flop_p2p import __version__
from flop_p2p.errors import FlopError

# click's class, which new versions of typer carry inside; typer itself names only what derives from it
UsageError: type[Any] = typer.BadParameter.__mro__[1]

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


@functools.cache
def command_line() -> typer.Typer:
    """The command line with all its commands."""
    from flop_p2p.cli import compare, data, egress, federation, keygen, local, node, simulate, status, topology

    app.command("simulate")(simulate.simulate)
    app.command("compare")(compare.compare)
    app.add_typer(data.app, name="data")
    app.add_typer(topology.app, name="topology")
    app.command("local")(local.local)
    app.command("node")(node.node)
    app.command("preflight")(node.preflight)
    app.command("keygen")(keygen.keygen)
    app.add_typer(federation.app, name="federation")
    app.command("status")(status.status)
    app.add_typer(egress.app, name="egress")
    return app


def main() -> None:
    """Run the command line; an error of ours is one line and its exit code, never a traceback."""
    try:
        sys.exit(command_line()(prog_name="flop-p2p", standalone_mode=False))
    except FlopError as error:
        _fail(str(error), error.exit_code)
    except UsageError as error:
        if message := error.format_message():  # none where help was printed instead
            _fail(f"{message} (see {error.ctx.command_path if error.ctx else 'flop-p2p'} --help)", 2)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped; what was finished before is kept", 130)


def _fail(message: str, exit_code: int) -> NoReturn:
    line = escape(" ".join(message.split()))
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {line}")
    sys.exit(exit_code)
