"""A picture of a topology: who is linked to whom, in every round."""

import math
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.sparse import csr_array

from flop_p2p.errors import RunError
from flop_p2p.topology import FAMILIES, Schedule
from flop_p2p.topology.analysis import influence
from flop_p2p.topology.families import sides

SITE_COLOUR = "#0072B2"
LINK_COLOUR = "#5F6B7A"
MOST_PANELS = 6
MOST_LABELLED = 64  # sites; above, they are drawn without names
MOST_ARROWS = 400  # above, directed links are drawn as plain lines
MOST_LINES = 20_000  # above, only their number is written
SHORT_NAME = 3  # characters that fit on a site's disc

Points = NDArray[np.float64]  # [sites, 2]


def draw_topology(schedule: Schedule, path: Path) -> None:
    """Write a PNG of a static topology, or of the first rounds of a time-varying one as panels.

    The width of a line stands for its mixing weight, the area of a site for its long-run influence.

    Raises:
        RunError: the file cannot be written.
    """
    rounds = MOST_PANELS if schedule.period is None else min(schedule.period, MOST_PANELS)
    columns = rounds if rounds <= 3 else math.ceil(rounds / 2)
    rows = math.ceil(rounds / columns)
    side = 7.0 if rounds == 1 else 3.8  # inches a panel
    figure = Figure(figsize=(max(side * columns, 6), side * rows + 0.6))
    figure.set_layout_engine("constrained", h_pad=0.1)
    FigureCanvasAgg(figure)
    points = _layout(schedule)
    areas = _areas(schedule, min(420, 14_000 / len(schedule.sites)) * (side / 7))
    matrices = [schedule.mixing(index) for index in range(rounds)]
    heaviest = max(_heaviest_link(matrix) for matrix in matrices)
    for index, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if index < rounds:
            _draw_links(axes, matrices[index], points, areas, heaviest)
            _draw_sites(axes, schedule, points, areas)
            axes.set_aspect("equal")
            axes.margins(0.14)
            if schedule.period != 1:
                axes.set_title(f"round {index + 1}", fontsize=11)
    figure.suptitle(_title(schedule, rounds), fontsize=13)
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot write this picture ({error})") from error


def _title(schedule: Schedule, rounds: int) -> str:
    title = f"{schedule.name}, {len(schedule.sites)} sites"
    if schedule.period is None:
        return f"{title}: {rounds} of its random rounds"
    if schedule.period == 1:
        return title
    which = f"all {rounds}" if rounds == schedule.period else f"the first {rounds} of {schedule.period}"
    return f"{title}: {which} rounds of a period"


def _layout(schedule: Schedule) -> Points:
    """Where sites are drawn: a shape that suits the family, else by springs along the links."""
    sites = len(schedule.sites)
    match schedule.name.split(":")[0]:
        case "grid" | "torus":
            return _lattice(sites, sides(sites)[1])
        case "path":
            return _lattice(sites, math.ceil(math.sqrt(sites)), snake=True)
        case "star":
            return np.vstack([np.zeros((1, 2)), _circle(sites - 1)])
        case family if family in FAMILIES or schedule.period != 1:
            return _circle(sites)
    graph = nx.from_scipy_sparse_array(schedule.mixing(0))
    if sites <= MOST_LABELLED:
        placed = nx.kamada_kawai_layout(graph, weight=None)
    else:
        placed = nx.spring_layout(graph, weight=None, seed=0)
    return np.array([placed[site] for site in range(sites)])


def _circle(sites: int) -> Points:
    """Clockwise from the top."""
    angles = np.pi / 2 - 2 * np.pi * np.arange(sites) / sites
    return np.column_stack([np.cos(angles), np.sin(angles)])


def _lattice(sites: int, columns: int, snake: bool = False) -> Points:
    """Row by row from the top; a snake turns at the end of each row."""
    row, column = np.divmod(np.arange(sites), columns)
    if snake:
        column = np.where(row % 2 == 1, columns - 1 - column, column)
    return np.column_stack([column, -row]).astype(np.float64)


def _areas(schedule: Schedule, area: float) -> NDArray[np.float64]:
    """Area of each site's disc in square points, ``[sites]``; ``area`` for one of average influence."""
    sites = len(schedule.sites)
    weights = influence(schedule)
    return np.full(sites, area) if weights is None else np.clip(area * sites * weights, area / 4, area * 4)


def _heaviest_link(matrix: csr_array) -> float:
    """The largest weight that a site gives to another."""
    links = matrix.tocoo()
    row, column = links.coords
    return float(links.data[row != column].max(initial=0))


def _draw_links(axes: Axes, matrix: csr_array, points: Points, areas: NDArray[np.float64], heaviest: float) -> None:
    """Lines between sites, and arrows towards the receiver where a link is used in one direction only."""
    links = matrix.tocoo()
    receiver, sender = links.coords
    between = receiver != sender
    receiver, sender, weight = receiver[between], sender[between], links.data[between]
    widths = 0.4 + 2.6 * weight / heaviest
    both_ways = matrix[sender, receiver] != 0
    arrows = np.flatnonzero(~both_ways)
    lines = np.flatnonzero(both_ways & (receiver < sender))
    if len(arrows) > MOST_ARROWS:
        lines, arrows = np.concatenate([lines, arrows]), arrows[:0]
    if len(lines) > MOST_LINES:
        note = f"{len(lines):,} links, too many to draw"
        axes.text(0.5, 0.5, note, ha="center", va="center", transform=axes.transAxes)
        return
    curves = [_curve(points, sender[i], receiver[i]) for i in lines]
    axes.add_collection(
        LineCollection(
            curves, linewidths=widths[lines], colors=LINK_COLOUR, alpha=0.9 if len(lines) < 150 else 0.4, zorder=1
        )
    )
    for i in arrows:
        axes.add_patch(
            FancyArrowPatch(
                tuple(points[sender[i]]),
                tuple(points[receiver[i]]),
                arrowstyle="-|>",
                connectionstyle="arc3,rad=-0.12",
                mutation_scale=10,
                linewidth=widths[i],
                color=LINK_COLOUR,
                alpha=0.85,
                shrinkA=math.sqrt(areas[sender[i]]) / 2,
                shrinkB=math.sqrt(areas[receiver[i]]) / 2 + 1,
                zorder=1,
            )
        )


def _curve(points: Points, start: int, end: int) -> Points:
    """The line between two sites as points; one that would run through a third site bows around it."""
    along = points[end] - points[start]
    middle = (points[start] + points[end]) / 2
    if len(points) > MOST_LABELLED or not _hits_a_site(points, start, end):
        return points[[start, end]]
    outward = np.array([-along[1], along[0]]) / np.hypot(*along)
    if outward @ (middle - points.mean(axis=0)) < 0:
        outward = -outward
    control = middle + _spacing(points) * outward
    step = np.linspace(0, 1, 24)[:, None]
    return np.asarray((1 - step) ** 2 * points[start] + 2 * step * (1 - step) * control + step**2 * points[end])


def _hits_a_site(points: Points, start: int, end: int) -> bool:
    """Whether a third site lies on the straight line between two."""
    along = points[end] - points[start]
    towards = points - points[start]
    share = towards @ along / (along @ along)
    aside = np.abs(towards[:, 0] * along[1] - towards[:, 1] * along[0]) / np.hypot(*along)
    return bool(np.any((share > 0.01) & (share < 0.99) & (aside < 0.2 * _spacing(points))))


def _spacing(points: Points) -> float:
    """Distance of the first site from the one nearest to it."""
    return float(np.hypot(*(points[1:] - points[0]).T).min())


def _draw_sites(axes: Axes, schedule: Schedule, points: Points, areas: NDArray[np.float64]) -> None:
    """Discs with the names of the sites on them, or under them if they are long."""
    rim = 1 if len(schedule.sites) <= MOST_LABELLED else 0
    axes.scatter(points[:, 0], points[:, 1], s=areas, color=SITE_COLOUR, edgecolors="white", linewidths=rim, zorder=2)
    if len(schedule.sites) > MOST_LABELLED:
        return
    short = max(map(len, schedule.sites)) <= SHORT_NAME
    for site, point, area in zip(schedule.sites, points, areas, strict=True):
        size = max(5.0, min(10.0, 0.42 * math.sqrt(area)))
        style: dict[str, Any] = {"color": "white", "va": "center", "fontsize": size}
        if not short:
            outline = [withStroke(linewidth=2.5, foreground="white")]
            style = {"color": "black", "va": "top", "fontsize": 8.5, "path_effects": outline}
        offset = (0, 0) if short else (0, -math.sqrt(area) / 2 - 1)
        axes.annotate(site, tuple(point), offset, textcoords="offset points", ha="center", zorder=3, **style)
