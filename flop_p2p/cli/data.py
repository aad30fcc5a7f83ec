"""`flop-p2p data`: which hospital has how much of which class, and a file with the data of each."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flop_p2p.cli.options import DATA_FLAGS, experiment_options
from flop_p2p.config import ExperimentSettings
from flop_p2p.errors import RunError

if TYPE_CHECKING:
    from flop_p2p.data import FederatedData

app = typer.Typer(help="Look at a data set and its partition over hospitals.", no_args_is_help=True)

MOST_SITES = 40
MOST_CLASSES = 12


@app.callback()
def _data() -> None:
    pass


@app.command("show")
@experiment_options(DATA_FLAGS)
def show(
    settings: ExperimentSettings,
    out: Annotated[Path | None, typer.Option(help="PNG file for a picture of the partition")] = None,
) -> None:
    """Show which hospital has how much of which class, in a table and as a picture."""
    from flop_p2p.data import load_federated

    data = load_federated(settings.data, settings.seed)
    console = Console(highlight=False)
    console.print(_heading(data), soft_wrap=True)
    _print_table(console, data)
    console.print(_skew(data), soft_wrap=True)
    if out is not None:
        from flop_p2p.report.partition import draw_partition

        draw_partition(data, out, settings.data.partition)
        console.print(Text(f"picture: {out}"), soft_wrap=True)


@app.command("export")
@experiment_options({"--topology": "topology.name", **DATA_FLAGS})
def export(
    settings: ExperimentSettings,
    out: Annotated[Path, typer.Option(help="new or empty folder for one safetensors file a site, and samples.toml")],
) -> None:
    """Write the data of each hospital to a file for its node, and what they have in common to samples.toml."""
    import tomli_w

    from flop_p2p.data import export_site, sample_settings
    from flop_p2p.simulation import load_data
    from flop_p2p.simulation.run_directory import file_names
    from flop_p2p.writing import write_text, writing

    data = load_data(settings)
    common = sample_settings(data).model_dump(mode="json")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise RunError(f"{out}: not empty; choose another --out")
    console = Console(highlight=False)
    for site, name in zip(data.sites, file_names([site.name for site in data.sites]), strict=True):
        export_site(data, site, out / f"{name}.safetensors")
        counts = f"{len(site.train):,} training, {len(site.validation):,} validation, {len(site.test):,} test samples"
        console.print(Text(f"{out / name}.safetensors: {site.name}, {counts}"), soft_wrap=True)
    write_text(out / "samples.toml", tomli_w.dumps({"samples": common}))
    console.print(Text(f"{out / 'samples.toml'}: [samples] for federation.toml"), soft_wrap=True)


def _heading(data: "FederatedData") -> Text:
    dataset = data.dataset
    shape = " x ".join(map(str, dataset.inputs.shape[1:]))
    kind = f"images of {shape} (channels x height x width)" if dataset.is_image else f"{shape} features"
    patients = "" if dataset.patients is None else f", {len(set(dataset.patients.tolist())):,} patients"
    return Text(
        f"{dataset.name}: {len(dataset.labels):,} samples{patients}, {kind}, "
        f"{dataset.task} with {len(dataset.class_names)} classes"
    )


def _print_table(console: Console, data: "FederatedData") -> None:
    """The table with a column a class, or one of summaries if it is too wide; and notes on what it leaves out."""
    if len(data.dataset.class_names) > MOST_CLASSES:
        console.print(_table(data, by_class=False))
        console.print(f"The table has a column a class up to {MOST_CLASSES} classes.")
    else:
        table = _table(data, by_class=True)
        width = table.__rich_measure__(console, console.options.update(width=10_000)).maximum
        if not console.is_terminal:
            console.width = max(width, console.width)
        console.print(table if width <= console.width else _table(data, by_class=False))
        if width > console.width:
            console.print(f"The table has a column a class where the terminal has {width} columns.")
    if len(data.sites) > MOST_SITES:
        console.print(f"The table shows the first {MOST_SITES} of {len(data.sites)} sites; the totals are of all.")


def _table(data: "FederatedData", by_class: bool) -> Table:
    """Samples of each class (all splits together) and of each split, one row a site and one of totals."""
    counts = data.class_counts("train") + data.class_counts("validation") + data.class_counts("test")
    splits = [(len(site.train), len(site.validation), len(site.test)) for site in data.sites]
    table = Table(
        box=box.SIMPLE_HEAD,
        show_footer=True,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        footer_style="bold",
    )
    table.add_column("site", Text("all"))
    if by_class:
        for name, total in zip(data.dataset.class_names, counts.sum(axis=0), strict=True):
            table.add_column(Text(name), f"{total:,}", justify="right")
    else:
        table.add_column("classes", str((counts.sum(axis=0) > 0).sum()), justify="right")
        table.add_column("most of class", "")
    for number, part in enumerate(("train", "validation", "test")):
        table.add_column(part, f"{sum(split[number] for split in splits):,}", justify="right")
    table.add_column("samples", f"{sum(map(sum, splits)):,}", justify="right")
    for site, row, split in list(zip(data.sites, counts, splits, strict=True))[:MOST_SITES]:
        if by_class:
            cells = [f"{count:,}" if count else Text("–", style="dim") for count in row]
        else:
            largest = int(row.argmax())
            cells = [str((row > 0).sum()), Text(f"{data.dataset.class_names[largest]} ({row[largest]:,})")]
        table.add_row(Text(site.name), *cells, *(f"{count:,}" for count in (*split, sum(split))))
    return table


def _skew(data: "FederatedData") -> Text:
    """How far the sites are from having the classes in the same proportions."""
    import numpy as np

    counts = data.class_counts("train") + data.class_counts("validation") + data.class_counts("test")
    present = (counts > 0).sum(axis=1)
    line = (
        f"classes a site: {present.min()} to {present.max()} (median {np.median(present):g}) "
        f"of {len(data.dataset.class_names)}; "
    )
    if data.dataset.task == "multilabel":
        return Text(line + "a sample can have several")
    largest = counts.max(axis=1).sum() / counts.sum()
    overall = counts.sum(axis=0).max() / counts.sum()
    return Text(
        line + f"who always guesses a site's largest class is right for {largest:.0%}, "
        f"who guesses the largest class of all for {overall:.0%}"
    )
