"""The tables of a comparison, for the terminal and as Markdown."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flop_p2p.comparison.results import REFERENCE, ArmResult, Comparison
from flop_p2p.comparison.statistics import LEAST_SEEDS, Difference, Estimate

NOTHING = "–"
GAP = 2  # blanks between two columns


@dataclass(frozen=True)
class Column:
    """One column of a table: its heading, one word a line, and a cell a method and topology."""

    heading: str
    cells: tuple[str, ...]
    is_text: bool = False

    @property
    def width(self) -> int:
        """Characters of the widest cell or word of the heading."""
        return max(map(len, (*self.heading.split("\n"), *self.cells)))


def comparison_tables(comparison: Comparison, width: int) -> Group:
    """The tables for a terminal ``width`` characters wide; columns that don't fit go into a further table."""
    parts: list[RenderableType] = [Text(title(comparison), style="bold"), Text()]
    named = _names(comparison)
    for heading, columns in (("", _main(comparison)), ("Further figures", _further(comparison))):
        if heading:
            parts.append(Text(heading, style="bold"))
        for group in _packed(named, columns, width):
            parts += (_rich_table([*named, *group]), Text())
    parts += (Text(note, style="dim") for note in notes(comparison))
    return Group(*parts)


def comparison_markdown(comparison: Comparison) -> str:
    """The same tables as Markdown."""
    named = _names(comparison)
    main, further = ([*named, *columns] for columns in (_main(comparison), _further(comparison)))
    tables = f"{_markdown_table(main)}\n\nFurther figures:\n\n{_markdown_table(further)}"
    remarks = "\n".join(f"- {note}" for note in notes(comparison))
    return f"**{title(comparison)}**\n\n{tables}\n\n{remarks}\n"


def title(comparison: Comparison) -> str:
    """Data, sites, seeds, rounds, model, weighting and head loss in one line."""
    settings = comparison.settings
    source = settings.data.path.stem if settings.data.path is not None else settings.data.source
    seeds = len(comparison.seeds)
    parts = (
        f"{source}, {settings.data.partition}",
        f"{_range(comparison.sites)} sites",
        f"{seeds} {'seeds' if seeds > 1 else 'seed'}",
        f"{_range(comparison.rounds)} rounds",
        f"model {comparison.model}",
        f"weighting {settings.topology.weighting}",
        f"head loss {settings.training.head_loss}",
    )
    return " · ".join(parts)


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know to read the figures."""
    seeds = len(comparison.seeds)
    interval = "± is half the 95 % Student t interval over seeds" if seeds > 1 else "One seed gives no interval"
    result = [
        "Mean over sites, each on its own test split after the last round; accuracies in percent, AUROC from 0 to 1. "
        f"{interval}. Worst site: the lowest accuracy of a site, mean over seeds."
    ]
    if not comparison.has_reference:
        result.append("No differences: centralized flop is not among the methods.")
    else:
        result.append(f"vs {REFERENCE}: difference to centralized flop in points, paired by seed.")
        result.append(_verdict_note(seeds))
    target = _target_note(comparison)
    if target:
        result.append(target)
    result.append(
        "Bytes: bodies sent by all in total; busiest: sent plus received by the busiest participant, a server "
        "included; moving the data to one place (pooled) is not counted. "
        "Pooled test: each site's own model on the test splits of all sites, mean over sites."
    )
    result += _privacy_notes(comparison)
    if comparison.settings.training.participation < 1:
        share = f"{100 * comparison.settings.training.participation:g} %"
        result.append(f"In a round {share} of the sites train under a server, all of them under the other methods.")
    result.extend(
        f"{name}: its mixing matrix is not doubly stochastic, so its sites converge to a weighted mean, not the plain "
        "one; `flop-p2p topology show` prints the weights."
        for name in comparison.lopsided
    )
    if comparison.settings.training.head_loss == "logit-adjusted":
        result.append(
            "Logit adjustment: balanced accuracy is decided without the site's class prior, the rest with it."
        )
    if comparison.settings.data.split[1] > 0:
        result.append("Chosen round: each site's best round on its own validation data, on its test split.")
    if comparison.grid:
        rates = ", ".join(f"{lr:g}" for lr in sorted(comparison.settings.comparison.lr_grid))
        result.append(f"Learning rates: chosen from {rates} by validation accuracy after the last round, first seed.")
    return result


def _privacy_notes(comparison: Comparison) -> list[str]:
    privacy, result = comparison.settings.privacy, []
    spent = [arm.epsilon for arm in comparison.arms if arm.epsilon is not None]
    if spent:
        low, high = min(low for low, _ in spent), max(high for _, high in spent)
        budget = "" if privacy.epsilon is None else f", budget {privacy.epsilon:g}"
        result.append(
            f"Differential privacy of a {privacy.unit}: noise multiplier {privacy.noise_multiplier:g}, clipping norm "
            f"{privacy.clipping_norm:g}, delta {privacy.delta:g}{budget}; epsilon {_epsilon((low, high))} over sites "
            "and seeds. These are no figures of plain training."
        )
    if privacy.masking != "none" and any(arm.arm.topology for arm in comparison.arms):
        result.append("Bodies are masked in gossip: a neighbour sees only their sum.")
    return result


def _verdict_note(seeds: int) -> str:
    if seeds < LEAST_SEEDS:
        return f"No verdict: it takes at least {LEAST_SEEDS} seeds, and there {'are' if seeds > 1 else 'is'} {seeds}."
    return (
        "Verdict on accuracy: matches when the whole interval of the difference lies above -1 point, "
        "falls short when it lies below, else undecided."
    )


def _target_note(comparison: Comparison) -> str | None:
    own = comparison.settings.comparison.target_accuracy
    if own is None and not comparison.has_reference:
        return None
    target = f"{100 * own:g} %" if own is not None else "flop's final accuracy less one point, for each seed"
    return f"To target: first evaluated round with an accuracy of {target}, mean over the seeds that reached it (n/N)."


def _names(comparison: Comparison) -> list[Column]:
    columns = [Column("method", tuple(result.arm.method for result in comparison.arms), is_text=True)]
    if any(result.arm.topology for result in comparison.arms):
        names = tuple(result.arm.topology_name or NOTHING for result in comparison.arms)
        columns.append(Column("topology", names, is_text=True))
    return columns


def _main(comparison: Comparison) -> list[Column]:
    column = _column_maker(comparison)
    columns = [
        column("accuracy", lambda result: percent(result.metrics.get("accuracy"))),
        column("balanced\naccuracy", lambda result: percent(result.metrics.get("balanced_accuracy"))),
        column("AUROC", lambda result: fraction(result.metrics.get("auroc"))),
        column("worst\nsite", lambda result: percent(result.worst_site, interval=False)),
    ]
    if comparison.has_reference:
        columns += [
            column(f"vs {REFERENCE}", lambda result: points(result.differences.get("accuracy"))),
            column("verdict", lambda result: _verdict(result.differences.get("accuracy"))),
        ]
    columns += [
        column("bytes\ntotal", lambda result: byte_size(result.bytes_total.mean)),
        column("bytes\nbusiest", lambda result: byte_size(result.bytes_busiest.mean)),
    ]
    if _target_note(comparison):
        columns.append(column("rounds to\ntarget", _rounds))
    return columns


def _further(comparison: Comparison) -> list[Column]:
    column = _column_maker(comparison)
    columns = []
    if comparison.has_reference:
        columns += [
            column(f"balanced\nvs {REFERENCE}", lambda result: points(result.differences.get("balanced_accuracy"))),
            column("balanced\nverdict", lambda result: _verdict(result.differences.get("balanced_accuracy"))),
        ]
    columns += [
        column("chosen round\naccuracy", lambda result: percent(result.chosen_round.get("accuracy"))),
        column("chosen round\nbalanced", lambda result: percent(result.chosen_round.get("balanced_accuracy"))),
        column("pooled test\naccuracy", lambda result: percent(result.pooled_test.get("accuracy"))),
        column("pooled test\nbalanced", lambda result: percent(result.pooled_test.get("balanced_accuracy"))),
        column("without prior\naccuracy", lambda result: percent(result.metrics.get("accuracy_without_prior"))),
        column("late sites\naccuracy", lambda result: percent(result.late_sites.get("accuracy"))),
        column("epsilon", lambda result: _epsilon(result.epsilon)),
        column("learning\nrate", lambda result: NOTHING if result.lr is None else f"{result.lr:g}"),
        column("seconds\na run", lambda result: number(result.seconds.mean)),
    ]
    return [own for own in columns if set(own.cells) != {NOTHING}]


def _column_maker(comparison: Comparison) -> Callable[[str, Callable[[ArmResult], str]], Column]:
    return lambda heading, cell: Column(heading, tuple(cell(result) for result in comparison.arms))


def percent(estimate: Estimate | None, interval: bool = True) -> str:
    """A fraction as ``91.2 ± 0.6`` percent."""
    if estimate is None or estimate.mean is None:
        return NOTHING
    half = estimate.half_width if interval else None
    return f"{100 * estimate.mean:.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def points(difference: Difference | None) -> str:
    """A difference as ``-0.3 ± 0.5`` points."""
    if difference is None or difference.estimate.mean is None:
        return NOTHING
    half = difference.estimate.half_width
    return f"{100 * difference.estimate.mean:+.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def fraction(estimate: Estimate | None) -> str:
    """A mean from 0 to 1 in three digits."""
    return NOTHING if estimate is None or estimate.mean is None else f"{estimate.mean:.3f}"


def number(value: float | None) -> str:
    """A number in three digits, or whole from 100 on."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"


def byte_size(value: float | None) -> str:
    """Bytes in three digits and a decimal unit, for example ``1.23 MB``."""
    if value is None:
        return NOTHING
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    for larger in units:
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{number(value)} {unit}"


def _verdict(difference: Difference | None) -> str:
    return NOTHING if difference is None or difference.verdict is None else difference.verdict


def _rounds(result: ArmResult) -> str:
    rounds = result.rounds_to_target
    reached = "" if rounds.counted == len(rounds.per_seed) else f" ({rounds.counted}/{len(rounds.per_seed)})"
    return (NOTHING if rounds.mean is None else f"{round(rounds.mean, 1):g}") + reached


def _epsilon(limits: tuple[float, float] | None) -> str:
    """As ``2.41 to 3.00``, or one number where both read the same."""
    return NOTHING if limits is None else " to ".join(dict.fromkeys(f"{limit:.2f}" for limit in limits))


def _range(limits: tuple[int, int]) -> str:
    low, high = limits
    return str(low) if low == high else f"{low} to {high}"


def _packed(named: Sequence[Column], columns: Iterable[Column], width: int) -> list[list[Column]]:
    """Columns in groups that fit ``width`` beside those that name the row; each group has at least one."""
    room = width - sum(column.width + GAP for column in named)
    groups: list[list[Column]] = []
    used = 0
    for column in columns:
        if not groups or used + column.width > room:
            groups.append([])
            used = 0
        groups[-1].append(column)
        used += column.width + GAP
    return groups


def _rich_table(columns: Sequence[Column]) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold underline")
    for column in columns:
        justify = "left" if column.is_text else "right"
        table.add_column(column.heading, justify=justify, no_wrap=True, vertical="bottom")  # type: ignore[arg-type]
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _markdown_table(columns: Sequence[Column]) -> str:
    heading = " | ".join(column.heading.replace("\n", " ") for column in columns)
    rule = " | ".join("---" if column.is_text else "---:" for column in columns)
    rows = (" | ".join(cells) for cells in zip(*(column.cells for column in columns), strict=True))
    return "\n".join(f"| {row} |" for row in (heading, rule, *rows))
