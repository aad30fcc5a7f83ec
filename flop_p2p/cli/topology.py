"""`flop-p2p topology`: what a topology costs, how fast it mixes, and what it looks like."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flop_p2p.config import TopologySettings, validate
from flop_p2p.errors import ConfigError

if TYPE_CHECKING:
    from flop_p2p.topology import Schedule
    from flop_p2p.topology.analysis import Analysis

app = typer.Typer(help="Show and compare topologies: who exchanges with whom.", no_args_is_help=True)

DEFAULT_SITES = 16
DEFAULT_PARAMETERS = 11_176_512  # the body of ResNet-18
BYTES_A_NUMBER = 4  # float32
MOST_SHOWN = 64  # sites whose long-run influence is printed one by one

SPEC_HELP = (
    "path, ring, star, full, grid, torus, random-regular:K, small-world:K:P, hypercube, exponential, "
    "one-peer-exponential, base:K, epidemic:S, or a topology file ending in .toml"
)
PARAMETERS_HELP = f"numbers in a body, four bytes each [dim]\\[default: {DEFAULT_PARAMETERS}, those of ResNet-18][/dim]"

Parameters = Annotated[int | None, typer.Option("--parameters", min=1, help=PARAMETERS_HELP)]
BodyBytes = Annotated[int | None, typer.Option("--body-bytes", min=1, help="bytes of a body, instead of --parameters")]
Seed = Annotated[int, typer.Option(min=0, help="draws random graphs and the rounds of an epidemic topology")]


@app.command("show")
def show(
    topology: Annotated[str, typer.Argument(metavar="SPEC", help=SPEC_HELP)],
    sites: Annotated[
        int | None, typer.Option(help="number of sites [dim]\\[default: those of the file, or 16][/dim]")
    ] = None,
    parameters: Parameters = None,
    body_bytes: BodyBytes = None,
    weights: Annotated[str | None, typer.Option(help=str(TopologySettings.model_fields["weights"].description))] = None,
    weighting: Annotated[
        str, typer.Option(help="uniform or samples: whether sites count the same or by their samples")
    ] = "uniform",
    samples: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="training samples of each site, for --weighting samples")
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="PNG file to draw the graph into [dim]\\[default: topology-NAME.png][/dim]")
    ] = None,
) -> None:
    """Show degree, diameter, spectral gap, traffic and mixing speed of a topology, and draw it."""
    from flop_p2p.report.topology import draw_topology
    from flop_p2p.topology import build_schedule, file_sites
    from flop_p2p.topology.analysis import analyse, mean_reached

    body = _body_bytes(parameters, body_bytes)
    values = {"name": topology, "weights": weights, "weighting": weighting}
    settings = validate(TopologySettings, values, "command line")
    if samples is not None and weighting == "uniform":
        raise ConfigError("--samples counts only with --weighting samples; add that or leave --samples out")
    named = file_sites(settings)
    if named is not None and sites not in (None, len(named)):
        raise ConfigError(f"--sites {sites}: {topology} names {len(named)} sites; leave --sites out")
    names = named or _numbered(DEFAULT_SITES if sites is None else sites)
    schedule = build_schedule(settings, names, _counts(samples), seed)
    console = Console(highlight=False)
    console.print(_figures(schedule, analyse(schedule), body))
    console.print(Text(mean_reached(schedule)), soft_wrap=True)
    _print_influence(console, schedule)
    out = out or Path(f"topology-{schedule.name.replace(':', '-')}.png")
    draw_topology(schedule, out)
    console.print(Text(f"picture: {out}"), soft_wrap=True)


@app.command("compare")
def compare(
    sites: Annotated[int, typer.Option(min=2, help="number of sites")] = DEFAULT_SITES,
    parameters: Parameters = None,
    body_bytes: BodyBytes = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="PNG file for the plots")] = Path("topologies.png"),
) -> None:
    """Compare all families at one number of sites: a table, and a plot against rounds and against bytes."""
    from flop_p2p.report.consensus import draw_consensus
    from flop_p2p.topology import FAMILIES, build_schedule
    from flop_p2p.topology.analysis import analyse
    from flop_p2p.topology.families import exists, parse_spec

    body = _body_bytes(parameters, body_bytes)
    table = _comparison_table()
    schedules = []
    for spec in map(parse_spec, FAMILIES):
        if exists(spec, sites):
            schedule = build_schedule(TopologySettings(name=str(spec)), _numbered(sites), seed=seed)
            schedules.append(schedule)
            table.add_row(*_comparison_row(schedule, analyse(schedule), body))
        else:
            reason = f"does not exist for {sites} sites: needs {FAMILIES[spec.family].sizes}"
            table.add_row(str(spec), *["–"] * 8, reason, style="dim")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(
            console.width, table.__rich_measure__(console, console.options.update(width=10_000)).maximum
        )
    console.print(f"{sites} sites, bodies of {_bytes(body)}, Metropolis-Hastings mixing weights on static graphs")
    console.print(table)
    draw_consensus(schedules, body, out)
    console.print(Text(f"picture: {out}"), soft_wrap=True)


def _figures(schedule: "Schedule", analysis: "Analysis", body: int) -> Table:
    """The figures of one topology, a row each."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, title=f"{schedule.name}, {len(schedule.sites)} sites")
    rounds = {None: "drawn anew in each round", 1: "the same in every round"}
    traffic = analysis.messages * body
    for name, value in (
        ("links", rounds.get(schedule.period, f"repeat after {schedule.period} rounds")),
        ("degree in a round", _degree(analysis)),
        ("diameter", str(analysis.diameter)),
        ("spectral gap", _gap(analysis)),
        ("messages a round", f"{analysis.messages:,.6g}"),
        ("bytes a round", f"{_bytes(traffic)}, with bodies of {_bytes(body)}"),
        ("rounds to shrink differences a thousandfold", _rounds(analysis)),
        ("bytes to shrink differences a thousandfold", _bytes_to_thousandth(analysis, body)),
        ("doubly stochastic", "yes" if schedule.doubly_stochastic else "no"),
    ):
        table.add_row(name, value)
    return table


def _comparison_table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("topology")
    for name in ("period", "degree", "diameter", "spectral\ngap", "messages\na round", "bytes\na round"):
        table.add_column(name, justify="right")
    table.add_column("rounds to a\nthousandth", justify="right")
    table.add_column("bytes to a\nthousandth", justify="right")
    table.add_column("converges to")
    return table


def _comparison_row(schedule: "Schedule", analysis: "Analysis", body: int) -> list[str]:
    return [
        schedule.name,
        "random" if schedule.period is None else str(schedule.period),
        _degree(analysis),
        str(analysis.diameter),
        _gap(analysis),
        f"{analysis.messages:,.4g}",
        _bytes(analysis.messages * body),
        _rounds(analysis),
        _bytes_to_thousandth(analysis, body),
        "the plain mean" if schedule.doubly_stochastic else "a mean weighted by chance",
    ]


def _print_influence(console: Console, schedule: "Schedule") -> None:
    """The long-run influence of every site, where sites differ and are not too many to read."""
    from flop_p2p.topology.analysis import influence

    weights = influence(schedule)
    if schedule.doubly_stochastic or weights is None or len(schedule.sites) > MOST_SHOWN:
        return
    console.print("Long-run influence of each site:")
    shares = [f"{site} {weight:.2%}" for site, weight in zip(schedule.sites, weights, strict=True)]
    console.print(Columns([Text(share) for share in shares], padding=(0, 3), equal=True))


def _degree(analysis: "Analysis") -> str:
    """One range, or two where sites send to more or fewer than they receive from."""
    if analysis.sends == analysis.receives:
        return _range(analysis.sends)
    return f"{_range(analysis.sends)} out, {_range(analysis.receives)} in"


def _range(bounds: tuple[int, int]) -> str:
    return str(bounds[0]) if bounds[0] == bounds[1] else f"{bounds[0]} to {bounds[1]}"


def _gap(analysis: "Analysis") -> str:
    return "–" if analysis.spectral_gap is None else f"{analysis.spectral_gap:.3g}"


def _rounds(analysis: "Analysis") -> str:
    from flop_p2p.topology.analysis import ROUND_LIMIT

    if analysis.rounds_to_thousandth is not None:
        return f"{analysis.rounds_to_thousandth:,}"
    return "never" if analysis.spectral_gap == 0 else f"over {ROUND_LIMIT:,}"


def _bytes_to_thousandth(analysis: "Analysis", body: int) -> str:
    if analysis.rounds_to_thousandth is None:
        return "–"
    return _bytes(analysis.messages * body * analysis.rounds_to_thousandth)


def _bytes(count: float) -> str:
    from flop_p2p.report.consensus import human_bytes

    return human_bytes(count)


def _body_bytes(parameters: int | None, body_bytes: int | None) -> int:
    """Bytes of a body from either flag.

    Raises:
        ConfigError: both are given.
    """
    if parameters is not None and body_bytes is not None:
        raise ConfigError("give either --parameters or --body-bytes, not both")
    return body_bytes or BYTES_A_NUMBER * (parameters or DEFAULT_PARAMETERS)


def _numbered(sites: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(1, sites + 1))


def _counts(samples: str | None) -> list[int] | None:
    """The numbers in ``--samples``.

    Raises:
        ConfigError: something else than whole numbers with commas between them.
    """
    if samples is None:
        return None
    try:
        return [int(count) for count in samples.split(",")]
    except ValueError as error:
        raise ConfigError(f"--samples {samples!r}: not whole numbers with commas between them") from error
