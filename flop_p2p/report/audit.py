"""The tables and pictures of a leakage audit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flop_p2p.audit import Audit
from flop_p2p.audit.inversion_trials import MESSAGE, Picture
from flop_p2p.report.membership import draw_membership, membership_cells, membership_headings, membership_notes
from flop_p2p.writing import writing

NOTHING = "–"
ONLY_WRITTEN = ("SSIM", "mean image (dB)", "what the attacker knows")  # no room on a terminal
DPI = 110
CELL = 0.85  # inches of an image
LABELS = 2.6  # inches for the names of exposures

UNFINISHED = "This audit did not end; here is what it found before."
LABEL_VERDICTS = {
    "better than chance": "better than the majority guess",
    "no better than chance": "no better than the majority guess",
    "undecided": "undecided",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One table: its title, headings, cells, and what a reader must know."""

    title: str
    headings: Sequence[str]
    cells: Sequence[Sequence[str]]
    notes: Sequence[str]


def audit_markdown(audit: Audit) -> str:
    """All tables as Markdown."""
    parts = [f"**{audit_title(audit)}**"] + ([] if audit.results["complete"] else [UNFINISHED])
    for section in _sections(audit):
        head = "| " + " | ".join(section.headings) + " |"
        rule = "|" + "---|" * len(section.headings)
        rows = ["| " + " | ".join(cells) + " |" for cells in section.cells]
        notes = [f"- {note}" for note in section.notes]
        parts.append("\n".join([f"## {section.title}", "", head, rule, *rows, "", *notes]))
    parts += [f"{attack}: left out. {reason}." for attack, reason in audit.results["skipped"].items()]
    return "\n\n".join(parts) + "\n"


def audit_tables(audit: Audit) -> Group:
    """All tables for a terminal, without the columns that only `audit.md` has room for."""
    parts: list[RenderableType] = [Text(audit_title(audit), style="bold"), Text()]
    for section in _sections(audit):
        shown = [place for place, heading in enumerate(section.headings) if heading not in ONLY_WRITTEN]
        table = Table(title=section.title, title_justify="left", box=box.SIMPLE_HEAD)
        for place in shown:
            table.add_column(section.headings[place])
        for cells in section.cells:
            table.add_row(*(cells[place] for place in shown))
        parts += [table, *(Text(note, style="dim") for note in section.notes), Text()]
    parts += [Text(f"{attack}: left out. {reason}.") for attack, reason in audit.results["skipped"].items()]
    return Group(*parts)


def audit_title(audit: Audit) -> str:
    """What was attacked, in one line."""
    attacked = audit.results["attacked"]
    numbers = attacked["parameters"]
    shape = " x ".join(map(str, attacked["shape"]))
    return (
        f"{attacked['data']} ({shape}), {attacked['partition']} · {len(attacked['sites'])} sites · "
        f"{attacked['method']} on {attacked['topology']} · {attacked['model']}, body {numbers['body']:,}, "
        f"head {numbers['head']:,} numbers · seed {attacked['seed']}"
    )


def _sections(audit: Audit) -> list[Section]:
    rows: list[Row] = audit.results["rows"]
    made = (
        ("inversion", _inversion),
        ("labels", _labels),
        ("membership", _membership),
    )
    sections = []
    for name, build in made:
        if own := [row for row in rows if row["attack"] == name]:
            section = build(own)
            told = _noise_notes(name, audit.results["attacked"]["privacy"])
            sections.append(replace(section, notes=[*section.notes, *told]))
    return sections


def _noise_notes(attack: str, privacy: Row) -> list[str]:
    """What an attack has to do with the noise of a federation that trains with it."""
    if privacy["noise_multiplier"] == 0:
        return []
    what = {
        "inversion": "of one step all rows but noise attack the gradient before it is clipped and noise is added, "
        "which no site sends; messages are attacked as they are sent, after training with noise",
        "labels": "all rows attack gradients before they are clipped and noise is added, which no site sends",
        "membership": "all bodies are those of training with noise",
    }
    setting = f"multiplier {privacy['noise_multiplier']:g}, clipping norm {privacy['clipping_norm']:g}"
    return [f"Sites train with noise (differential privacy, {setting}): {what[attack]}."]


def _inversion(rows: Sequence[Row]) -> Section:
    cells = [
        (
            str(row["round"]),
            row["source"],
            str(row["batch"]),
            row["exposure"],
            _interval(row["psnr"], 1),
            _interval(row["ssim"], 2),
            f"{row['psnr_mean_image']:.1f}",
            f"{row['psnr_nearest_other']:.1f}",
            NOTHING if row["identified"] is None else _rate(row["identified"]),
            row["verdict"],
            row["knows"],
        )
        for row in rows
    ]
    headings = (
        "round", "of", "images", "exposure", "PSNR (dB)", "SSIM", "mean image (dB)", "other (dB)", "identified",
        "verdict", "what the attacker knows",
    )  # fmt: skip
    chance = max(row["identified_by_chance"] for row in rows if row["identified_by_chance"] is not None)
    notes = [
        "PSNR and SSIM of reconstructions against the images behind the gradient, with 95 % Student t intervals over "
        "images (those of a batch, which are not independent, count one by one); of a message against the training "
        "images that fit best.",
        "Mean image, other: PSNR of the mean of the attacker's own images, and of the one among them that is nearest "
        "to the patient's: what it has without seeing anything, though it does not know which one that is.",
        "Identified: the reconstruction is nearer to the image behind the gradient than to up to 500 others, with "
        f"the exact 95 % interval; by chance at most {100 * chance:.1f} %. Not told of messages: behind them are so "
        "many images that some one is always near.",
        "Verdict: better than chance if the interval of identified lies above what chance gives, or that of the gain "
        "in PSNR over other lies above 0; no better only if neither does and that of the gain lies at or below 0.",
    ]
    return Section("Inversion of gradients", headings, cells, notes)


def _labels(rows: Sequence[Row]) -> Section:
    cells = [
        (
            str(row["round"]),
            str(row["batch"]),
            row["method"],
            _rate(row["rate"]),
            f"{100 * row['majority']:.1f} %",
            LABEL_VERDICTS[row["verdict"]],
            row["knows"],
        )
        for row in rows
    ]
    headings = ("round", "images", "attack", "labels found", "majority", "verdict", "what the attacker knows")
    notes = [
        "Majority: the share of each site's most frequent class, which a guess of it reaches: what the verdict "
        "compares to. Intervals of single images are exact (Clopper and Pearson), of batches Student t over batches, "
        "95 %.",
    ]
    return Section("Recovery of labels", headings, cells, notes)


def _membership(rows: Sequence[Row]) -> Section:
    return Section("Inference of membership", membership_headings(rows), membership_cells(rows), membership_notes(rows))


def _interval(figure: Row, digits: int) -> str:
    if figure["low"] is None:
        return f"{figure['mean']:.{digits}f}"
    return f"{figure['mean']:.{digits}f} ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"


def _rate(figure: Row) -> str:
    """A rate in percent; limits of Student t may lie beyond what a rate can be, and are cut there."""
    if figure["low"] is None:
        return f"{100 * figure['mean']:.0f} %"
    low, high = max(0.0, figure["low"]), min(1.0, figure["high"])
    return f"{100 * figure['mean']:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def draw_audit(audit: Audit, directory: Path) -> list[Path]:
    """Write the pictures into ``directory``: originals and reconstructions of each moment, and those of membership.

    Reconstructions that were drawn there are left, for an audit calls this after each of its attacks.

    Raises:
        RunError: a file cannot be written.
    """
    paths = []
    for picture in audit.pictures:
        source = "message" if picture.source == MESSAGE else f"step-of-{picture.batch}"
        path = directory / f"inversion-round{picture.round}-{source}.png"
        if not path.exists():
            with writing(path):
                _draw(picture, path)
        paths.append(path)
    members = [row for row in audit.results["rows"] if row["attack"] == "membership"]
    return paths + (draw_membership(members, directory) if members else [])


def _draw(picture: Picture, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = _lines(picture)
    width = max(len(images) for _, images in lines)
    figure = Figure(figsize=(LABELS + CELL * width, 0.5 + CELL * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"before round {picture.round}, {picture.source}, {picture.batch} images", fontsize=9)
    grid = figure.subplots(len(lines), width + 1, squeeze=False, width_ratios=[LABELS / CELL, *[1] * width])
    for axes in grid.flat:
        axes.axis("off")
    for row, (label, images) in zip(grid, lines, strict=True):
        row[0].text(1, 0.5, label, ha="right", va="center", fontsize=8)
        for axes, image in zip(row[1:], images, strict=False):
            axes.imshow(_shown(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    figure.savefig(path, dpi=DPI)


def _lines(picture: Picture) -> list[tuple[str, list[np.ndarray]]]:
    """What stands in each line: originals, once where all exposures have the same, and reconstructions."""
    lines: list[tuple[str, list[np.ndarray]]] = []
    before: list[np.ndarray] = []
    for name, trial in picture.trials.items():
        if not _same(before, trial.originals):
            lines.append(("original", trial.originals))
            before = trial.originals
        lines.append((f"{name}\n{np.mean(trial.psnr):.1f} dB", trial.found))
    return lines


def _same(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def _shown(image: np.ndarray) -> np.ndarray:
    """``[height, width]`` in grey, ``[height, width, 3]`` in colour."""
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
