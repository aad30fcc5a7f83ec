"""`flop-p2p federation`: make the common file of a federation, check it, compare it and show it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flop_p2p.cli import revisions
from flop_p2p.cli.options import GOSSIP_FLAGS, SHARED_FLAGS, setting_options
from flop_p2p.config import FederationSettings, Member, TopologySettings, load_federation, read_toml, validate
from flop_p2p.config.base import merge, nested
from flop_p2p.errors import ConfigError, FederationError

if TYPE_CHECKING:
    from flop_p2p.identity.members import Finding

app = typer.Typer(help="Make, check, compare and change the common file of a federation.", no_args_is_help=True)
app.command("add-member")(revisions.add_member)
app.command("remove-member")(revisions.remove_member)
app.command("rotate-key")(revisions.rotate_key)
app.command("sign")(revisions.sign)
app.command("adopt")(revisions.adopt)

SIMULATED_ONLY = ("--early-stopping", "--participation")
FEDERATION_FLAGS = {
    "--name": "name",
    "--method": "method",
    "--task": "samples.task",
    "--classes": "samples.class_names",
    "--shape": "samples.shape",
    "--mean": "samples.mean",
    "--std": "samples.std",
    "--topology": "topology.name",
    **{
        flag: key
        for flag, key in SHARED_FLAGS.items()
        if key.startswith(("model.", "topology.", "training.", "gossip.", "privacy.")) and flag not in SIMULATED_ONLY
    },
    "--seed": "seed",
    **GOSSIP_FLAGS,
}

FederationFile = Annotated[Path, typer.Argument(metavar="FILE", help="federation.toml")]


@app.command("init")
@setting_options(FederationSettings, FEDERATION_FLAGS)
def init(
    overrides: dict[str, Any],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="federation.toml to write")],
    member: Annotated[
        list[str] | None, typer.Option(metavar=revisions.MEMBER, help=f"a member: {revisions.MEMBER_HELP}; repeat it")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar=revisions.MEMBER, help="the member that averages, with --method flop only")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="settings to start from, such as samples.toml of `data export`"),
    ] = None,
    samples: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="training samples of a member, for --weighting samples; repeat it"),
    ] = None,
) -> None:
    """Make the common file of a federation from the public keys of its members."""
    from flop_p2p.identity.files import write_federation
    from flop_p2p.identity.members import check_federation

    members = [revisions.parse_member(text) for text in member or ()]
    if server is not None:
        members.append(revisions.parse_member(server, role="server"))
    if len(members) < 2:
        raise ConfigError(f"--member: a federation has two members or more, got {len(members)}")
    counts = _counts(samples or [], {each.name for each in members})
    federation = _settings(
        start, overrides, [each.model_copy(update={"samples": counts.get(each.name)}) for each in members]
    )
    findings = check_federation(federation)
    write_federation(file, federation)
    console = Console(highlight=False, soft_wrap=True)
    _print_findings(console, findings)
    console.print(Text(f"written to {file}; give the same file to every member, and compare by telephone:"))
    console.print(Text(f"fingerprint: {fingerprint_of(federation)}"))


@app.command("check")
def check(file: FederationFile) -> None:
    """Check a federation file, a line a check."""
    from flop_p2p.identity.members import inspect_federation

    findings = inspect_federation(load_federation(file))
    _print_findings(Console(highlight=False, soft_wrap=True), findings)
    failed = [finding for finding in findings if not finding.ok]
    if failed:
        raise FederationError(f"{file}: {len(failed)} of {len(findings)} checks failed, first {failed[0].check}")


@app.command("fingerprint")
def fingerprint(
    path: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="federation.toml, or a folder of keys")],
) -> None:
    """Print short fingerprints that people can compare over the telephone."""
    from flop_p2p.identity.keys import PUBLIC, PublicKeys, load_public

    console = Console(highlight=False, soft_wrap=True)
    if path.is_dir() or path.name == PUBLIC:
        public = load_public(path / PUBLIC if path.is_dir() else path)
        console.print(Text(f"keys of {public.name}: {public.fingerprint}"))
        return
    federation = load_federation(path)
    console.print(Text(f"federation {federation.name}, revision {federation.revision}: {fingerprint_of(federation)}"))
    for name in federation.names:
        member = federation.member(name)
        keys = PublicKeys(name=name, curve_key=member.curve_key, signing_key=member.signing_key)
        console.print(Text(f"keys of {name}: {keys.fingerprint}"))


@app.command("show")
def show(file: FederationFile) -> None:
    """Show the members of a federation and who exchanges with whom."""
    from flop_p2p.identity.members import exchanging_pairs
    from flop_p2p.identity.signatures import is_signed

    federation = load_federation(file)
    neighbours: dict[str, list[str]] = {name: [] for name in federation.names}
    for one, other in sorted(exchanging_pairs(federation)):
        neighbours[one].append(other)
        neighbours[other].append(one)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("member", "role", "messages", "bodies", "samples", "neighbours", "signed"):
        table.add_column(column)
    for name, others in neighbours.items():
        member = federation.member(name)
        signed = "yes" if is_signed(federation, name, member.signing_key) else "no"
        cells = (
            name,
            member.role,
            member.control or "only dials out",
            member.bulk or "",
            "" if member.samples is None else f"{member.samples:,}",
            ", ".join(sorted(others)),
            "" if federation.revision == 1 else signed,
        )
        table.add_row(*map(Text, cells))
    console = Console(highlight=False)
    if not console.is_terminal:
        widest = table.__rich_measure__(console, console.options.update(width=10_000)).maximum
        console.width = max(widest, console.width)
    console.print(Text(_summary(federation)), soft_wrap=True)
    console.print(table)
    console.print(Text(f"fingerprint: {fingerprint_of(federation)}"), soft_wrap=True)


def _settings(start: Path | None, overrides: dict[str, Any], members: list[Member]) -> FederationSettings:
    """The federation of a file with settings, of flags over them, and of members; a topology file is put in."""
    from flop_p2p.topology.files import inline_topology

    where = "command line" if start is None else f"command line and {start}"
    values: dict[str, Any] = {"samples": {}}
    if start is not None:
        merge(values, read_toml(start))
    merge(values, nested(overrides))
    topology, graph = inline_topology(validate(TopologySettings, values.get("topology", {}), where))
    values |= {
        "topology": topology.model_dump(),
        "graph": None if graph is None else graph.model_dump(),
        "members": [member.model_dump() for member in members],
    }
    return validate(FederationSettings, values, where)


def fingerprint_of(federation: FederationSettings) -> str:
    """The federation id as groups to be read aloud."""
    from flop_p2p.identity.keys import grouped

    return grouped(bytes.fromhex(federation.id))


def _summary(federation: FederationSettings) -> str:
    topology = "star" if federation.method == "flop" else federation.topology.name
    since = f" (holds from round {federation.from_round + 1})" if federation.revision > 1 else ""
    labels = f"{federation.samples.task} with {len(federation.samples.class_names)} classes"
    return (
        f"{federation.name}, revision {federation.revision}{since}: "
        f"{federation.method} on a {topology}, {federation.training.rounds} rounds, {labels}"
    )


def _print_findings(console: Console, findings: "list[Finding]") -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        word = Text("ok    ", style="green") if finding.ok else Text("FAILED", style="bold red")
        console.print(Text.assemble(word, " ", finding.check.ljust(width), "  ", finding.text))


def _counts(texts: list[str], names: set[str]) -> dict[str, int]:
    """Samples by member from ``NAME=NUMBER``."""
    counts = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if name not in names or not number.isdecimal():
            known = ", ".join(sorted(names))
            raise ConfigError(f"--samples {text!r}: write NAME=NUMBER with the name of a member ({known})")
        counts[name] = int(number)
    return counts
