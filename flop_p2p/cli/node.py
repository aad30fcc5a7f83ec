"""`flop-p2p node` runs a site's daemon; `flop-p2p preflight` checks everything before."""

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from flop_p2p.config import load_federation, load_site
from flop_p2p.errors import FederationError, PreflightError


def node(
    site: Annotated[Path, typer.Argument(help="site.toml of this site")],
    adopt: Annotated[
        int, typer.Option(min=0, help="rounds in which a new site trains its head alone on the body it takes over")
    ] = 0,
    role: Annotated[str | None, typer.Option(help="site or server; must be what the federation says")] = None,
    log_format: Annotated[str, typer.Option(help="auto, human or json; auto is human")] = "auto",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "info",
) -> None:
    """Run the node of a site: train, exchange sealed bodies with the neighbours, keep the head at home."""
    signal.signal(signal.SIGTERM, _stop_before_start)
    settings = load_site(site)
    from flop_p2p.node.logs import set_up_logging

    set_up_logging(log_format, log_level, settings.name)
    if role is not None:
        federation = load_federation(settings.federation)
        actual = next((each.role for each in federation.members if each.name == settings.name), None)
        if actual != role:
            raise FederationError(f"--role {role}: {settings.name} is {actual or 'no member'} in {settings.federation}")
    from flop_p2p.node.daemon import run_node

    run_node(settings, adopt)


def _stop_before_start(*_: object) -> None:
    """Nothing has begun while libraries and data are still loaded, so nothing has to be finished."""
    logging.getLogger(__name__).info("asked to stop before the start")
    sys.exit(0)


def preflight(site: Annotated[Path, typer.Argument(help="site.toml of this site")]) -> None:
    """Check keys, federation, data, model, disk and clock, and really greet every neighbour."""
    from flop_p2p.node.preflight import Preflight

    console = Console(highlight=False, soft_wrap=True)
    checks = []
    for check in Preflight(load_site(site)).checks():
        mark = "[green]ok    [/]" if check.ok else "[red]failed[/]"
        console.print(f"{mark} {escape(f'{check.name}: {check.text}')}")
        checks.append(check)
    failed = [check.name for check in checks if not check.ok]
    if failed:
        raise PreflightError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}; see the lines above")
