"""The command line: one file a command. Heavy libraries are imported by the command that needs them."""

import contextlib
import errno
import functools
import logging
import os
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
    from flop_p2p.cli import audit, compare, data, egress, federation, keygen, local, node, simulate, status, topology

    app.command("simulate")(simulate.simulate)
    app.command("compare")(compare.compare)
    app.add_typer(audit.app, name="audit")
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
        exit_code = command_line()(prog_name="flop-p2p", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        sys.exit(exit_code)
    except FlopError as error:
        _fail(str(error), error.exit_code)
    except UsageError as error:
        if message := error.format_message():  # none where help was printed instead
            _fail(f"{message} (see {error.ctx.command_path if error.ctx else 'flop-p2p'} --help)", 2)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped; what was finished before is kept", 130)
    except OSError as error:
        _give_up_output()
        if error.errno == errno.EPIPE:  # `| head` has read enough
            sys.exit(1)
        _fail(f"{error.filename or 'standard output'}: cannot be used ({error.strerror or error})", 1)


def _give_up_output() -> None:
    """Let what waits for standard output go to nowhere, or Python would fail once more at its end."""
    with contextlib.suppress(OSError, AttributeError):  # there is none at all
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _fail(message: str, exit_code: int) -> NoReturn:
    from flop_p2p.node.logs import log_is_json

    line = " ".join(message.split())
    with contextlib.suppress(OSError):  # nobody reads it; the exit code tells
        if log_is_json():
            logging.getLogger(__name__).critical("%s", line, extra={"exit_code": exit_code})
        else:
            console = Console(stderr=True, soft_wrap=True, highlight=False)
            console.print(f"[bold red]error:[/] {escape(line)}")
    sys.exit(exit_code)
