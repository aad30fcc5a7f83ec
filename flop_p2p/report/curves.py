"""Pictures of a comparison: accuracy against rounds, against traffic, and of each site."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flop_p2p.comparison.results import ArmResult, Comparison
from flop_p2p.errors import RunError
from flop_p2p.report.tables import byte_size, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, apart for every kind of colour vision, without the yellow that fades on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", "--", "-.", ":")
MOST_MARKERS = 12  # a line
MOST_SITE_NAMES = 60
LOG_RATIO = 20.0  # of largest to smallest traffic, above which its axis is logarithmic
DPI = 150


@dataclass(frozen=True)
class Style:
    """How one method and topology looks in every picture."""

    colour: str
    marker: str
    dashes: str


def draw_comparison(comparison: Comparison, directory: Path) -> list[Path]:
    """Write the pictures of a comparison into ``directory`` and return their paths.

    Raises:
        RunError: a file cannot be written.
    """
    pictures = {
        "accuracy-rounds.png": accuracy_rounds(comparison),
        "accuracy-bytes.png": accuracy_bytes(comparison),
        "accuracy-sites.png": accuracy_sites(comparison),
    }
    for name, figure in pictures.items():
        try:
            figure.savefig(directory / name, dpi=DPI)
        except OSError as error:
            raise RunError(f"{directory / name}: cannot write this picture ({error.strerror})") from error
    return [directory / name for name in pictures]


def accuracy_rounds(comparison: Comparison) -> "Figure":
    """Mean accuracy over sites against rounds: a line a method, its band the interval over seeds."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(comparison, height=4.8)
    for result, style in _styled(comparison):
        _draw_curve(axes, result.curve.rounds, result, style, result.arm.label)
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy, mean over sites (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _caption(axes, comparison, _band_text(comparison))
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def accuracy_bytes(comparison: Comparison) -> "Figure":
    """Mean accuracy over sites against bytes sent by all; methods that send nothing are horizontal lines."""
    from matplotlib.ticker import FuncFormatter

    figure, axes = _figure(comparison, height=4.8)
    sent = [value for result in comparison.arms for value in result.curve.bytes_total if value > 0]
    for result, style in _styled(comparison):
        if result.curve.bytes_total[-1] > 0:
            _draw_curve(axes, result.curve.bytes_total, result, style, result.arm.label)
        else:
            final = 100 * result.curve.accuracy[-1]
            label = f"{result.arm.label} (sends nothing)"
            axes.axhline(final, color=style.colour, linestyle=(0, (2, 2)), linewidth=1.4, label=label, zorder=1)
    if sent and max(sent) > LOG_RATIO * min(sent):
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: byte_size(value)))
    axes.set_xlabel("bytes of bodies sent by all participants")
    axes.set_ylabel("accuracy, mean over sites (%)")
    _caption(axes, comparison, _band_text(comparison))
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def accuracy_sites(comparison: Comparison) -> "Figure":
    """Accuracy of each site after the last round, a dot a method, mean over seeds; the worst site on top."""
    results = _styled(comparison)
    sites = _sites_by_accuracy([result for result, _ in results])
    row = 0.14 + 0.055 * len(results) if len(sites) <= MOST_SITE_NAMES else 0.16
    figure, axes = _figure(comparison, height=1.7 + max(row * len(sites), 0.24 * len(results)))
    for position, (result, style) in enumerate(results):
        own = [(place, result.site_accuracy[site]) for place, site in enumerate(sites) if site in result.site_accuracy]
        shift = 0.6 * ((position + 0.5) / len(results) - 0.5)  # of a row, so that equal dots stay apart
        axes.plot(
            [100 * accuracy for _, accuracy in own],
            [place + shift for place, _ in own],
            style.marker,
            color=style.colour,
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.5,
            label=result.arm.label,
        )
    for edge in range(1, len(sites)):
        axes.axhline(edge - 0.5, color="#e4e4e4", linewidth=0.7, zorder=0)
    step = max(1, -(-len(sites) // MOST_SITE_NAMES))
    axes.set_yticks(range(0, len(sites), step), sites[::step])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(sites) - 0.4, -0.6)
    axes.set_xlabel("accuracy on the site's own test split (%)")
    _caption(axes, comparison, "mean over seeds" if len(comparison.seeds) > 1 else "one seed")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _figure(comparison: Comparison, height: float) -> "tuple[Figure, Axes]":
    """An empty picture with room for the legend at the right."""
    from matplotlib.figure import Figure

    legend = 0.9 + 0.085 * max(len(result.arm.label) for result in comparison.arms)
    figure = Figure(figsize=(6.6 + legend, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _caption(axes: "Axes", comparison: Comparison, remark: str) -> None:
    """The title of the comparison over two lines, left-aligned, with a remark on what is drawn."""
    parts = [*title(comparison).split(" · "), remark]
    middle = (len(parts) + 1) // 2
    text = "\n".join(" · ".join(half) for half in (parts[:middle], parts[middle:]))
    axes.set_title(text, fontsize=9, loc="left", color="#333333")


def _band_text(comparison: Comparison) -> str:
    return "band: 95 % interval over seeds" if len(comparison.seeds) > 1 else "one seed"


def _styled(comparison: Comparison) -> list[tuple[ArmResult, Style]]:
    """Every method and topology with a look that differs from all others, in black and white too."""
    return [
        (
            result,
            Style(COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)], DASHES[position % len(DASHES)]),
        )
        for position, result in enumerate(comparison.arms)
    ]


def _draw_curve(axes: "Axes", x: Sequence[float], result: ArmResult, style: Style, label: str) -> None:
    curve = result.curve
    every = max(1, len(x) // MOST_MARKERS)
    axes.plot(
        x,
        [100 * value for value in curve.accuracy],
        color=style.colour,
        marker=style.marker,
        linestyle=style.dashes,
        linewidth=1.6,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.5,
        markevery=every,
        label=label,
        zorder=3,
    )
    low = [value for value in curve.low if value is not None]
    high = [value for value in curve.high if value is not None]
    if len(low) == len(x):
        # An interval may reach beyond 0 and 100 %; the picture does not.
        lower, upper = ([min(100.0, max(0.0, 100 * value)) for value in limits] for limits in (low, high))
        axes.fill_between(x, lower, upper, color=style.colour, alpha=0.13, linewidth=0, zorder=2)


def _sites_by_accuracy(results: Sequence[ArmResult]) -> list[str]:
    """All sites, the one with the lowest accuracy over methods first."""
    values: dict[str, list[float]] = {}
    for result in results:
        for site, accuracy in result.site_accuracy.items():
            values.setdefault(site, []).append(accuracy)
    return sorted(values, key=lambda site: sum(values[site]) / len(values[site]))
