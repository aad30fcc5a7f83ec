"""A picture of a partition: each hospital's mix of classes and its size."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flop_p2p.errors import RunError

if TYPE_CHECKING:
    from flop_p2p.data import FederatedData

# Okabe and Ito's colours, apart for every kind of colour vision.
SPLIT_COLOURS = {"train": "#0072B2", "validation": "#E69F00", "test": "#009E73"}
ROW_HEIGHT = 0.34  # inches a site
MOST_ANNOTATED = 60  # sites; above, cells are drawn without numbers
MOST_CLASSES_ANNOTATED = 20


def draw_partition(data: "FederatedData", path: Path, title: str) -> None:
    """Write a PNG: on the left a row a site, shaded by the share of each class among its samples and labelled
    with their number; on the right the size of each site by split.

    Raises:
        RunError: the file cannot be written.
    """
    counts = data.class_counts("train") + data.class_counts("validation") + data.class_counts("test")
    sites, classes = counts.shape
    row = ROW_HEIGHT if sites <= MOST_ANNOTATED else max(0.08, ROW_HEIGHT * MOST_ANNOTATED / sites)
    mix_width = min(12.0, max(3.4, 0.62 * classes))
    figure = Figure(figsize=(mix_width + 6.2, max(2.6, row * sites + 1.9)), layout="constrained")
    FigureCanvasAgg(figure)
    mix, size = figure.subplots(1, 2, sharey=True, width_ratios=(mix_width, 3.2))
    _draw_mix(mix, data, counts, figure)
    _draw_sizes(size, data)
    figure.legend(loc="outside lower right", ncols=3, frameon=False, fontsize=8)
    samples = sum(len(site.train) + len(site.validation) + len(site.test) for site in data.sites)
    figure.suptitle(f"{data.dataset.name}, {title}: {samples:,} samples at {sites} sites", fontsize=12)
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot write this picture ({error})") from error


def _draw_mix(axes: Any, data: "FederatedData", counts: np.ndarray[Any, Any], figure: Figure) -> None:
    """The share of each class among a site's samples, a sequential colour from white, with the numbers on it."""
    sites, classes = counts.shape
    totals = [len(site.train) + len(site.validation) + len(site.test) for site in data.sites]
    shares = counts / np.maximum(1, np.asarray(totals))[:, None]
    image = axes.imshow(shares, cmap=colormaps["Blues"], vmin=0, vmax=1, aspect="auto")
    annotated = sites <= MOST_ANNOTATED and classes <= MOST_CLASSES_ANNOTATED
    if annotated:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.55 else "black"
            if count:
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=8)
    long = max(map(len, data.dataset.class_names)) * classes > 50
    step = max(1, classes // 40)
    axes.set_xticks(
        range(0, classes, step),
        data.dataset.class_names[::step],
        rotation=40 if long else 0,
        ha="right" if long else "center",
        rotation_mode="anchor" if long else "default",
    )
    step = 1 if sites <= MOST_ANNOTATED else max(1, sites // MOST_ANNOTATED)
    axes.set_yticks(range(0, sites, step), [site.name for site in data.sites][::step])
    axes.set_xlabel("class")
    share = "share of the site's samples"
    axes.set_title(f"samples of each class (shade: {share})" if annotated else share, fontsize=10)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(sites + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.6 if annotated else 0)
    axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(
        image, ax=axes, fraction=0.04, pad=0.02, aspect=14, shrink=min(1.0, 12 / sites), anchor=(0, 1)
    )
    bar.set_ticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"])


def _draw_sizes(axes: Any, data: "FederatedData") -> None:
    """Samples of each site, stacked by split, with the total beside the bar."""
    rows = np.arange(len(data.sites))
    left = np.zeros(len(data.sites), np.int64)
    for part, colour in SPLIT_COLOURS.items():
        widths = np.asarray([len(getattr(site, part)) for site in data.sites])
        axes.barh(rows, widths, left=left, color=colour, label=part, height=0.72)
        left += widths
    if len(data.sites) <= MOST_ANNOTATED:
        for row, total in zip(rows, left, strict=True):
            axes.annotate(
                f"{total:,}", (total, row), (3, 0), textcoords="offset points", va="center", ha="left", fontsize=8
            )
    axes.set_xlim(0, left.max() * 1.18)
    axes.set_xlabel("samples")
    axes.set_title("size of each site", fontsize=10)
    axes.tick_params(axis="y", which="both", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
