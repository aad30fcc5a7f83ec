"""Pictures of a comparison: accuracy against rounds, against traffic, and of each site."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
LINES_HEIGHT = 4.8  # inches
MOST_MARKERS = 12  # a line
MOST_BANDS = 6
LEAST_SEEDS_DRAWN = 3
MOST_SITE_NAMES = 60
MOST_ROWS_HEIGHT = 16.0  # inches of all sites together
LOG_RATIO = 20.0  # of largest to smallest traffic, above which its axis is logarithmic
DPI = 150

IntervalLook = Literal["none", "band", "bar"]


@dataclass(frozen=True)
class Style:
    """How one method and topology looks in every picture.

    size: of lines and markers, from 1 for the first down to 0 for the last, which is drawn on top: where two
        coincide, the lower one shows at the edges.
    """

    colour: str
    marker: str
    dashes: str
    size: float


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

    figure, axes = _figure(comparison, LINES_HEIGHT, _remark(comparison))
    for result, style in _styled(comparison):
        _draw_curve(axes, result.curve.rounds, result, style, _interval_look(comparison))
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish_lines(figure, axes, comparison)
    return figure


def accuracy_bytes(comparison: Comparison) -> "Figure":
    """Mean accuracy over sites against bytes sent by all; methods that send no bodies are horizontal lines."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, axes = _figure(comparison, LINES_HEIGHT, _remark(comparison))
    for result, style in _styled(comparison):
        if result.curve.bytes_total[-1] > 0:
            _draw_curve(axes, result.curve.bytes_total, result, style, _interval_look(comparison))
        else:
            _draw_level(axes, result, style)
    sent = [value for result in comparison.arms for value in result.curve.bytes_total if value > 0]
    if sent and max(sent) > LOG_RATIO * min(sent):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(sent) < 100 * min(sent) else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: byte_size(value)))
    axes.set_xlabel("bytes of bodies sent by all participants")
    _finish_lines(figure, axes, comparison)
    return figure


def accuracy_sites(comparison: Comparison) -> "Figure":
    """Accuracy of each site after the last round, a dot a method, mean over seeds; the worst site on top."""
    results = _styled(comparison)
    sites = _sites_by_accuracy([result for result, _ in results])
    rows = min(MOST_ROWS_HEIGHT, 0.08 * (1 + len(results)) * len(sites))
    remark = "mean over seeds" if len(comparison.seeds) > 1 else "one seed"
    figure, axes = _figure(comparison, 1.4 + rows, remark)
    for position, (result, style) in enumerate(results):
        own = [(place, result.site_accuracy[site]) for place, site in enumerate(sites) if site in result.site_accuracy]
        shift = 0.76 * ((position + 0.5) / len(results) - 0.5)  # of a row, so that equal dots stay apart
        axes.plot(
            [100 * accuracy for _, accuracy in own],
            [place + shift for place, _ in own],
            style.marker,
            color=style.colour,
            markersize=5.2,
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
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _figure(comparison: Comparison, height: float, remark: str) -> "tuple[Figure, Axes]":
    """An empty picture with the title of the comparison, a remark, and room for the legend at the right."""
    from matplotlib.figure import Figure

    legend = 1.0 + 0.085 * max(len(result.arm.label) for result in comparison.arms)
    figure = Figure(figsize=(6.6 + legend, max(height, 1.4 + 0.24 * len(comparison.arms))), layout="constrained")
    parts = [*title(comparison).split(" · "), remark]
    middle = (len(parts) + 1) // 2
    text = "\n".join(" · ".join(half) for half in (parts[:middle], parts[middle:]))
    figure.suptitle(text, x=0.01, ha="left", fontsize=9, color="#333333")
    axes = figure.subplots()
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _interval_look(comparison: Comparison) -> IntervalLook:
    """Two seeds give intervals that fill the picture, and many bands on top of each other cannot be read."""
    if len(comparison.seeds) < LEAST_SEEDS_DRAWN:
        return "none"
    return "band" if len(comparison.arms) <= MOST_BANDS else "bar"


def _remark(comparison: Comparison) -> str:
    seeds = len(comparison.seeds)
    bare = "one seed" if seeds == 1 else "mean over seeds"
    remarks = {
        "none": bare,
        "band": "band: 95 % interval over seeds",
        "bar": "bar at the end: 95 % interval over seeds",
    }
    return remarks[_interval_look(comparison)]


def _finish_lines(figure: "Figure", axes: "Axes", comparison: Comparison) -> None:
    """Limits that show every mean and every final interval; wide bands of early rounds may run out of them."""
    shown: list[float] = []
    for result in comparison.arms:
        curve = result.curve
        shown += curve.accuracy
        if _interval_look(comparison) != "none":
            shown += [limit for limit in (curve.low[-1], curve.high[-1]) if limit is not None]
    low, high = max(0.0, 100 * min(shown)), min(100.0, 100 * max(shown))
    margin = max(0.5, 0.04 * (high - low))
    axes.set_ylim(low - margin, high + margin)
    axes.set_ylabel("accuracy, mean over sites (%)")
    figure.legend(loc="outside right center", frameon=False)


def _styled(comparison: Comparison) -> list[tuple[ArmResult, Style]]:
    """Every method and topology with a look that differs from all others, in black and white too."""
    last = max(1, len(comparison.arms) - 1)
    styled = []
    for place, result in enumerate(comparison.arms):
        colour, marker, dashes = (looks[place % len(looks)] for looks in (COLOURS, MARKERS, DASHES))
        styled.append((result, Style(colour, marker, dashes, 1 - place / last)))
    return styled


def _draw_curve(axes: "Axes", x: Sequence[float], result: ArmResult, style: Style, interval_look: IntervalLook) -> None:
    curve = result.curve
    axes.plot(
        x,
        [100 * value for value in curve.accuracy],
        color=style.colour,
        marker=style.marker,
        linestyle=style.dashes,
        linewidth=1.3 + 1.9 * style.size,
        markersize=4.5 + 4.0 * style.size,
        markeredgecolor="white",
        markeredgewidth=0.5,
        markevery=max(1, len(x) // MOST_MARKERS),
        label=result.arm.label,
        zorder=3,
    )
    # An interval may reach beyond 0 and 100 %; the picture does not.
    low, high = (
        [100 * min(1.0, max(0.0, value)) for value in limits if value is not None] for limits in (curve.low, curve.high)
    )
    if interval_look == "band":
        axes.fill_between(x, low, high, color=style.colour, alpha=0.12, linewidth=0, zorder=2)
    elif interval_look == "bar":
        axes.plot([x[-1]] * 2, [low[-1], high[-1]], color=style.colour, marker="_", linewidth=1, zorder=2)


def _draw_level(axes: "Axes", result: ArmResult, style: Style) -> None:
    """A horizontal line at the final accuracy, over the whole width, with its marker at the right edge."""
    axes.plot(
        [0, 1],
        [100 * result.curve.accuracy[-1]] * 2,
        transform=axes.get_yaxis_transform(),
        color=style.colour,
        linestyle=(0, (2, 2)),
        linewidth=1.4,
        marker=style.marker,
        markevery=[1],
        clip_on=False,
        label=f"{result.arm.label} (no bodies sent)",
        zorder=1,
    )


def _sites_by_accuracy(results: Sequence[ArmResult]) -> list[str]:
    """All sites, the one with the lowest accuracy over methods first."""
    values: dict[str, list[float]] = {}
    for result in results:
        for site, accuracy in result.site_accuracy.items():
            values.setdefault(site, []).append(accuracy)
    return sorted(values, key=lambda site: sum(values[site]) / len(values[site]))
