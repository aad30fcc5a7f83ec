"""`flop-p2p audit leakage`: what a neighbour could learn from what a hospital sends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from flop_p2p.cli.options import SHARED_FLAGS, experiment_options
from flop_p2p.config import ExperimentSettings

app = typer.Typer(help="Attack your own model and data, to see what leaks.", no_args_is_help=True)

AUDIT_FLAGS = {
    "--method": "method",
    "--topology": "topology.name",
    "--attacks": "audit.attacks",
    "--moments": "audit.moments",
    "--images": "audit.inversion_images",
    "--inversion-batches": "audit.inversion_batches",
    "--iterations": "audit.inversion_iterations",
    "--restarts": "audit.inversion_restarts",
    "--label-images": "audit.label_images",
    "--label-iterations": "audit.label_iterations",
    "--label-others": "audit.label_others",
    "--membership-shadows": "audit.membership_shadows",
    "--membership-methods": "audit.membership_methods",
    "--membership-topologies": "audit.membership_topologies",
}


@app.callback()
def _group() -> None:
    pass


@app.command("leakage")
@experiment_options({**AUDIT_FLAGS, **SHARED_FLAGS})
def leakage(
    settings: ExperimentSettings,
    out: Annotated[Path | None, typer.Option(help="directory to write; default runs/audit-<time>")] = None,
) -> None:
    """Measure what a neighbour could learn about patients: images, labels, membership."""
    from flop_p2p.audit import Audit, audit_leakage
    from flop_p2p.report.audit import audit_markdown, audit_tables, draw_audit
    from flop_p2p.writing import write_text

    console = Console(highlight=False)
    directory = out or Path("runs") / f"audit-{datetime.now():%Y%m%d-%H%M%S}"
    pictures: list[Path] = []

    def report(found: Audit) -> None:
        write_text(directory / "audit.md", audit_markdown(found))
        pictures[:] = draw_audit(found, directory)

    with _progress(console) as progress:
        audit = audit_leakage(settings, directory, progress, report)
    console.print(audit_tables(audit))
    names = ", ".join(("audit.json", "audit.md", *(path.name for path in pictures)))
    console.print(f"written to {directory}: {names}", soft_wrap=True, markup=False)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for what is being done on a terminal, one line for each of it elsewhere."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading the data", total=None)
        last = ""

        def show(text: str, done: int, total: int) -> None:
            nonlocal last
            stage = text.split(":")[0]
            if stage != last:
                last = stage
                bar.reset(task, total=total, description=text)
                if not console.is_terminal:
                    console.print(stage, markup=False, soft_wrap=True)
            bar.update(task, description=text, completed=done, total=total)

        yield show
