"""A picture of how fast topologies bring the sites together, against rounds and against bytes."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from flop_p2p.errors import RunError
from flop_p2p.topology import Schedule
from flop_p2p.topology.analysis import consensus_distances, messages

# Okabe and Ito's colours, apart for every kind of colour vision; markers and dashes tell lines apart as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINE_STYLES = ("-", "--")
MARKERS = "osD^vP*X<>dphH"
FLOOR = 1e-6  # consensus distance taken for the exact mean


def human_bytes(count: float) -> str:
    """A number of bytes in decimal units, such as 44.7 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB" if count < 999.5 else f"{count:,.0f} TB"


def draw_consensus(schedules: Sequence[Schedule], body_bytes: float, path: Path, rounds: int = 40) -> None:
    """Write a PNG with the consensus distance of schedules over the same number of sites, ``rounds`` long.

    On the left it is drawn against rounds, on the right against the bytes that all sites sent together.

    Raises:
        RunError: the file cannot be written.
    """
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    against_rounds, against_bytes = figure.subplots(1, 2, sharey=True)
    looks = itertools.cycle(zip(itertools.cycle(MARKERS), itertools.product(LINE_STYLES, COLOURS), strict=False))
    for schedule, (marker, (line_style, colour)) in zip(schedules, looks, strict=False):
        distances = np.maximum(list(itertools.islice(consensus_distances(schedule), rounds + 1)), FLOOR)
        distances = distances[: int(np.argmin(distances)) + 1]
        sent = body_bytes * np.cumsum([0, *(messages(schedule, index) for index in range(len(distances) - 1))])
        style: dict[str, Any] = {"color": colour, "linestyle": line_style, "marker": marker, "markersize": 5.5}
        style["markevery"] = max(1, len(distances) // 8)
        against_rounds.plot(distances, label=schedule.name, **style)
        against_bytes.plot(sent[1:], distances[1:], **style)
    against_rounds.set(xlabel="rounds", ylabel="consensus distance, relative to the start", xlim=(0, rounds))
    against_bytes.set(xlabel="bytes that all sites sent together", xscale="log")
    against_bytes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: human_bytes(value)))
    against_bytes.xaxis.set_minor_formatter(NullFormatter())
    for axes in (against_rounds, against_bytes):
        axes.set(yscale="log", ylim=(FLOOR / 1.6, 1.5))
        for level in (1e-3, FLOOR):
            axes.axhline(level, color="#777777", linewidth=1, linestyle=":")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for level, name in ((1e-3, "a thousandth"), (FLOOR, "a millionth or less")):
        where = against_bytes.get_yaxis_transform()
        against_bytes.text(0.01, 1.1 * level, name, va="bottom", color="#555555", fontsize=9, transform=where)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    figure.suptitle(f"How fast {len(schedules[0].sites)} sites agree, with a body of {human_bytes(body_bytes)}")
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot write this picture ({error})") from error
