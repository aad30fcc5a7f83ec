"""The table and the pictures of membership inference."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flop_p2p.audit.membership.figures import MARGIN, MOST_TIMES
from flop_p2p.report.curves import COLOURS, DPI
from flop_p2p.writing import writing

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
STRONGER = "LiRA"  # the test that pictures show
NOTHING = "–"
KEY = ("method", "topology", "holder", "distance", "masking", "head")
# Okabe and Ito's colour, marker and dashes of each method and head that pictures show
LOOKS = {
    ("local", "known"): ("local, given away", COLOURS[4], "D", ":"),
    ("fedavg", "shared"): ("full model, its own head (fedavg, dfedavg)", COLOURS[1], "s", "-"),
    ("fedavg-ft", "shared"): ("fedavg-ft", COLOURS[5], "P", "-"),
    ("fedavg", "fitted"): ("full model, fitted head (fedavg, dfedavg)", COLOURS[2], "^", "-."),
    ("dfedavg", "fitted"): ("full model, fitted head (fedavg, dfedavg)", COLOURS[2], "^", "-."),
    ("flop", "fitted"): ("body, fitted head (flop, p2p-flop)", COLOURS[0], "o", "-"),
    ("flop", "known"): ("body, known head (flop, p2p-flop)", COLOURS[6], "v", "--"),
    ("dfedavg", "shared"): ("full model, its own head (fedavg, dfedavg)", COLOURS[1], "s", "-"),
    ("p2p-flop", "fitted"): ("body, fitted head (flop, p2p-flop)", COLOURS[0], "o", "-"),
    ("p2p-flop", "known"): ("body, known head (flop, p2p-flop)", COLOURS[6], "v", "--"),
    ("p2p-flop-alt", "fitted"): ("p2p-flop-alt, fitted head", COLOURS[2], "^", "-"),
    ("p2p-flop-alt", "known"): ("p2p-flop-alt, known head", COLOURS[3], "X", "--"),
}


def membership_headings(rows: Sequence[Row]) -> tuple[str, ...]:
    """Those of the table of ``rows``."""
    rates = (f"found at {100 * rate:g} %" for rate in _rates(rows))
    return ("method", "held by", "head", "AUC, loss threshold", "AUC, LiRA", *rates, "verdict")


def membership_cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """One line for each method, topology, position and head, its cells under `membership_headings`."""
    lines: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault(tuple(row[key] for key in KEY), {})[row["test"]] = row
    return [_cells(tests, _rates(rows)) for tests in lines.values()]


def _cells(tests: dict[str, Row], rates: Sequence[float]) -> tuple[str, ...]:
    weaker, row = tests["loss threshold"], tests[STRONGER]
    found = {point["fpr"]: f"{_interval(point, 100, 1)} %" for point in row["tpr"]}
    return (
        row["method"] if row["topology"] is None else f"{row['method']}, {row['topology']}",
        _held_by(row),
        row["head"],
        _interval(weaker["auc"], 1, 3),
        _interval(row["auc"], 1, 3),
        *(found.get(rate, NOTHING) for rate in rates),
        _verdict({weaker["verdict"], row["verdict"]}),
    )


def _rates(rows: Sequence[Row]) -> list[float]:
    """The false-positive rates of any row, the highest first."""
    return sorted({point["fpr"] for row in rows for point in row["tpr"]}, reverse=True)


def _held_by(row: Row) -> str:
    hops = {None: "", 1: ", 1 hop"}.get(row["distance"], f", {row['distance']} hops")
    return f"{row['holder']}{hops}{', masked' if row['masking'] == 'pairwise' else ''}"


def _verdict(both: set[str]) -> str:
    """What is proven of the better of two tests."""
    return next(word for word in ("better than chance", "undecided", "no better than chance") if word in both)


def _interval(figure: Row, times: float, digits: int) -> str:
    value, low, high = (f"{times * figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def membership_notes(rows: Sequence[Row]) -> list[str]:
    """What a reader must know to read the table."""
    first = rows[0]
    return [
        "How well records that a site trained on are told from others of the site. AUC: 0.5 is chance, 1 certainty. "
        "Found at 10 %: members found by LiRA where 10 % of the others are taken for members; given where ten such "
        "others or more are expected.",
        f"Intervals: 95 %, bootstrap over {first['patients']} patients or records. Every site is the victim, each of "
        f"{first['shadows'] + 2} federations the target, {first['shadows']} are its shadows. {_accuracies(rows)}",
        "Hops: 1 is a neighbour or the server, which gets what the site sends; further away an attacker gets what "
        "came through others. Masked: the attacker gets weighted sums only (privacy.masking = pairwise).",
        "Head: shared, part of what is sent; own, that of the attacker's site; fitted, by the attacker to the records "
        "in question; known, that of the victim, which no neighbour has.",
        f"Verdict: no better than chance only if with both tests the interval of the AUC lies within {MARGIN} of 0.5 "
        f"and that of members found below {MOST_TIMES:g} times the rate. With intervals of 95 %, a few of many lines "
        "are called better by luck.",
    ]


def _accuracies(rows: Sequence[Row]) -> str:
    arms = {(row["method"], row["topology"]): row["accuracy"] for row in rows}
    members, others = ([100 * accuracy[part] for accuracy in arms.values()] for part in ("members", "non_members"))
    return f"Accuracy of the sites' models: {_range(members)} on members, {_range(others)} on others."


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def draw_membership(rows: Sequence[Row], directory: Path) -> list[Path]:
    """Write the pictures of LiRA into ``directory``: AUC against distance, and ROC curves at one hop.

    Raises:
        RunError: a file cannot be written.
    """
    shown = [row for row in rows if row["test"] == STRONGER and (row["method"], row["head"]) in LOOKS]
    paths = []
    for name, draw in (("membership-distance.png", _draw_distances), ("membership-roc.png", _draw_curves)):
        path = directory / name
        with writing(path):
            draw(shown).savefig(path, dpi=DPI)
        paths.append(path)
    return paths


def _panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each panel by its title; what needs no exchange is in all of them."""
    everywhere = [row for row in rows if row["distance"] is None]
    panels: dict[str, list[Row]] = {}
    for row in rows:
        if row["distance"] is not None:
            title = "a server" if row["topology"] is None else row["topology"]
            panels.setdefault(title, list(everywhere)).append(row)
    return panels or {"nothing exchanged": everywhere}


def _lines(rows: Sequence[Row]) -> list[tuple[tuple[str, str, str, str, bool], list[Row]]]:
    """Each look (label, colour, marker, dashes, hollow) with its rows by distance."""
    lines: dict[tuple[str, str, str, str, bool], list[Row]] = {}
    for row in rows:
        label, colour, marker, dashes = LOOKS[row["method"], row["head"]]
        masked = row["masking"] == "pairwise"
        if masked and row["head"] == "known":
            continue  # so that lines can be told apart; it is in the table
        look = (f"{label}, masked" if masked else label, colour, marker, ":" if masked else dashes, masked)
        lines.setdefault(look, []).append(row)
    return list(lines.items())


def _draw_distances(rows: Sequence[Row]) -> "Figure":
    panels = _panels(rows)
    furthest = {title: max((row["distance"] or 1) for row in own) for title, own in panels.items()}
    figure, grid = _figure(panels, [1 + furthest[title] for title in panels])
    for axes, (title, own) in zip(grid, panels.items(), strict=True):
        axes.axhspan(0.5 - MARGIN, 0.5 + MARGIN, color="#e8e8e8", linewidth=0, zorder=0)
        lines = _lines(own)
        for place, ((label, colour, marker, dashes, hollow), points) in enumerate(lines):
            value, low, high = ([row["auc"][key] for row in points] for key in ("value", "low", "high"))
            if points[0]["distance"] is None:
                axes.axhline(value[0], color=colour, linestyle=dashes, linewidth=1.2, label=label)
                continue
            shift = 0.3 * ((place + 0.5) / len(lines) - 0.5)
            x = [row["distance"] + shift for row in points]
            axes.plot(x, value, dashes, marker=marker, color=colour, mfc="white" if hollow else colour, label=label)
            axes.vlines(x, low, high, color=colour, linewidth=1)
        axes.set_xticks(range(1, furthest[title] + 1))
        axes.set_xlim(0.5, furthest[title] + 0.5)
        axes.set_xlabel("hops: server, other sites" if title == "a server" else "hops from the attacked site")
    grid[0].set_ylabel("AUC of LiRA (grey: chance)")
    return _with_legend(figure, grid)


def _draw_curves(rows: Sequence[Row]) -> "Figure":
    panels = _panels([row for row in rows if row["distance"] in (None, 1)])
    figure, grid = _figure(panels, [3] * len(panels))
    for axes, own in zip(grid, panels.values(), strict=True):
        for (label, colour, _, dashes, _), points in _lines(own):
            curve = points[0]["roc"]
            axes.plot(curve["fpr"], curve["tpr"], dashes, color=colour, label=label, linewidth=1.5)
        least = min(row["roc"]["fpr"][0] for row in own)
        axes.plot([least, 1], [least, 1], color="#999999", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(least, 1)
        axes.set_ylim(least, 1)
        axes.set_xlabel("false-positive rate")
    grid[0].set_ylabel("true-positive rate of LiRA, one hop")
    return _with_legend(figure, grid)


def _figure(panels: Sequence[str] | dict[str, Any], widths: Sequence[float]) -> "tuple[Figure, Sequence[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 + 1.0 * sum(widths), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    grid: Sequence[Axes] = figure.subplots(1, len(widths), sharey=True, width_ratios=widths, squeeze=False)[0]
    for axes, title in zip(grid, panels, strict=True):
        axes.set_title(title, fontsize=10)
        axes.grid(color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, grid


def _with_legend(figure: "Figure", grid: "Sequence[Axes]") -> "Figure":
    """Each look once, though it may be in several panels."""
    found: dict[str, Artist] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(list(found.values()), list(found), loc="outside right center", frameon=False, fontsize=8)
    return figure
