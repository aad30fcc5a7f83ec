"""`flop-p2p simulate`: one method, one topology, one seed."""

from pathlib import Path
from typing import Annotated

import typer

from flop_p2p.cli.options import SHARED_FLAGS, experiment_options
from flop_p2p.config import ExperimentSettings


@experiment_options({"--method": "method", "--topology": "topology.name", **SHARED_FLAGS})
def simulate(
    settings: ExperimentSettings,
    out: Annotated[Path | None, typer.Option(help="run directory to write")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with an interrupted run in --out")] = False,
) -> None:
    """Simulate one method over the hospitals of a data set."""
    print(settings, out, resume)
