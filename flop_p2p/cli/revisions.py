"""`flop-p2p federation add-member`, `remove-member`, `rotate-key`, `sign` and `adopt`: change a federation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from flop_p2p.config import (
    FederationSettings,
    Member,
    TopologyFile,
    TopologySettings,
    load_federation,
    load_site,
    validate,
)
from flop_p2p.errors import FederationError, IdentityError

if TYPE_CHECKING:
    from collections.abc import Sequence

MEMBER = "PUBLIC[@tcp://HOST:PORT[,tcp://HOST:PORT]]"
MEMBER_HELP = "its public.toml, and its addresses for messages and for bodies; none if it only dials out"

FROM_ROUND = typer.Option(metavar="ROUND", min=2, help="first round in which it holds, as `flop-p2p status` counts")
OUT = typer.Option(metavar="NEXT", help="file to write the next revision to")

Before = Annotated[Path, typer.Argument(metavar="FILE", help="federation.toml, or its latest revision")]
NewTopology = Annotated[
    str | None, typer.Option(metavar="SPEC", help="new topology, where the present one does not fit the new members")
]


def add_member(
    file: Before,
    member: Annotated[str, typer.Argument(metavar=MEMBER, help=MEMBER_HELP)],
    from_round: Annotated[int | None, FROM_ROUND] = None,
    out: Annotated[Path | None, OUT] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="change FILE itself: only before the federation ran for the first time")
    ] = False,
    samples: Annotated[int | None, typer.Option(min=1, help="its training samples, for weighting by samples")] = None,
    topology: NewTopology = None,
) -> None:
    """Write the next revision of a federation, with one more member."""
    from flop_p2p.identity.files import write_federation
    from flop_p2p.identity.revisions import changes, extended, with_member

    if in_place == (out is not None) or in_place == (from_round is not None):
        raise typer.BadParameter(
            "give --from-round and --out for the next revision, or --in-place before the first run"
        )
    before = load_federation(file)
    members = with_member(before, parse_member(member, samples=samples))
    if out is not None and from_round is not None:
        _propose(before, members, from_round, out, topology)
        return
    after = extended(before, members, _topology(before, topology))
    write_federation(file, after, replace=True)
    _print(changes(before, after), f"{file} changed: give it to every member anew, and compare fingerprints")


def remove_member(
    file: Before,
    name: Annotated[str, typer.Argument(help="name of the member that leaves")],
    from_round: Annotated[int, FROM_ROUND],
    out: Annotated[Path, OUT],
    topology: NewTopology = None,
) -> None:
    """Write the next revision of a federation, without one of its members."""
    from flop_p2p.identity.revisions import without_member

    before = load_federation(file)
    _propose(before, without_member(before, name), from_round, out, topology)


def rotate_key(
    file: Before,
    public: Annotated[Path, typer.Argument(help="public.toml of the member's new keys")],
    from_round: Annotated[int, FROM_ROUND],
    out: Annotated[Path, OUT],
) -> None:
    """Write the next revision of a federation, with new keys of one of its members."""
    from flop_p2p.identity.keys import load_public
    from flop_p2p.identity.revisions import with_keys

    before = load_federation(file)
    _propose(before, with_keys(before, load_public(public)), from_round, out, None)


def sign(
    file: Annotated[Path, typer.Argument(metavar="NEXT", help="the revision to sign; the signature is added to it")],
    keys: Annotated[Path, typer.Option(metavar="DIR", help="folder of this member's keys")],
    before: Annotated[
        Path | None, typer.Option(metavar="FILE", help="the revision that holds now, to see what NEXT changes")
    ] = None,
) -> None:
    """Sign a revision for one member, after showing what it says, and tell who is still missing."""
    from flop_p2p.identity.files import write_federation
    from flop_p2p.identity.keys import load_keys
    from flop_p2p.identity.members import check_federation
    from flop_p2p.identity.revisions import changes, check_draft
    from flop_p2p.identity.signatures import missing_signatures
    from flop_p2p.identity.signatures import sign as add_signature

    own, after = load_keys(keys), load_federation(file)
    if after.revision == 1:
        raise FederationError(f"{file}: revision 1 is not signed; compare `flop-p2p federation fingerprint` instead")
    present = None if before is None else load_federation(before)
    check_federation(after, signed=False)
    _print([f"revision {after.revision} of {after.name}, from round {after.from_round + 1}: {', '.join(after.names)}"])
    if present is not None:
        check_draft(present, after)
        _print(changes(present, after))
    _check_signer(after, present, own.public.signing_key, own.name)
    signed = add_signature(after, own.name, own.signing)
    write_federation(file, signed, replace=True)
    missing = missing_signatures(signed, present)
    still = f"still to sign: {', '.join(missing)}" if missing else "all members signed; each can adopt it now"
    _print([f"signed revision {after.revision} of {after.name} for {own.name}"], still)


def adopt(
    site: Annotated[Path, typer.Argument(metavar="SITE", help="site.toml of this site")],
    file: Annotated[Path, typer.Argument(metavar="NEXT", help="the revision that all members signed")],
) -> None:
    """Check a signed revision against what this site holds, and put it where its node takes it up."""
    from flop_p2p.identity.files import adopted_revisions, store_revision
    from flop_p2p.identity.members import check_federation
    from flop_p2p.identity.revisions import chain, changes, check_revision

    settings = load_site(site)
    base = load_federation(settings.federation)
    check_federation(base)
    latest, after = chain(base, adopted_revisions(settings.state))[-1], load_federation(file)
    if after.id == latest.id:
        _print([f"revision {after.revision} is the one that this site holds already"])
        return
    check_revision(latest, after)
    stored = store_revision(settings.state, after)
    _print(
        changes(latest, after),
        f"adopted as {stored}; the node takes it up by itself",
    )


def parse_member(text: str, role: Literal["site", "server"] = "site", samples: int | None = None) -> Member:
    """A member from the file of its public keys and its addresses, as in ``north/public.toml@tcp://a:1,tcp://a:2``.

    Raises:
        ConfigError, IdentityError: an address is wrong, or the file holds no keys.
    """
    from flop_p2p.identity.keys import load_public

    path, _, addresses = text.partition("@tcp://")
    control, _, bulk = f"tcp://{addresses}".partition(",") if addresses else ("", "", "")
    values = load_public(Path(path)).model_dump() | {
        "role": role,
        "control": control or None,
        "bulk": bulk or None,
        "samples": samples,
    }
    return validate(Member, values, f"member {text!r}")


def _topology(before: FederationSettings, name: str | None) -> tuple[TopologySettings, TopologyFile | None] | None:
    """The topology that a flag names, with the content of its file if it is one."""
    from flop_p2p.topology.files import inline_topology

    return None if name is None else inline_topology(before.topology.model_copy(update={"name": name}))


def _propose(
    before: FederationSettings, members: "Sequence[Member]", from_round: int, out: Path, topology: str | None
) -> None:
    from flop_p2p.identity.files import write_federation
    from flop_p2p.identity.revisions import changes, propose
    from flop_p2p.identity.signatures import missing_signatures

    after = propose(before, members, from_round - 1, _topology(before, topology))
    write_federation(out, after)
    missing = ", ".join(missing_signatures(after, before))
    _print(changes(before, after), f"written to {out}; to be signed by: {missing}")


def _check_signer(after: FederationSettings, before: FederationSettings | None, signing_key: str, name: str) -> None:
    """Refuse keys that are not those of a member, now or before."""
    entries = [each.member(name) for each in (after, before) if each is not None and name in each.names]
    if not entries or name not in after.names:
        raise FederationError(f"{name!r} is no member in revision {after.revision}, so its signature is not needed")
    if signing_key not in [entry.signing_key for entry in entries]:
        hint = "" if before is not None else "; to sign with keys that it replaces, give --before too"
        raise IdentityError(f"these keys are not those of {name!r} in revision {after.revision}{hint}")


def _print(lines: "Sequence[str]", last: str | None = None) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for line in (*lines, *([] if last is None else [last])):
        console.print(Text(line))
