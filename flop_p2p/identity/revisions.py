"""Changing a running federation: the next revision, what it must satisfy, and the chain of revisions.

A revision is a complete federation file. It names the id of the one before and the round from which it holds, may
change members and topology only, and is signed by all its members: those that stay and those that are new. A member
that leaves need not consent. A member with a new signing key signs with the old one too, which proves that the change
is its own wish; who lost the old one is removed and added again.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from flop_p2p.config import FederationSettings, Member, TopologyFile, TopologySettings, first_difference, validate
from flop_p2p.errors import FederationError
from flop_p2p.identity.keys import PublicKeys
from flop_p2p.identity.members import check_federation
from flop_p2p.identity.signatures import missing_signatures

CHANGING = ("revision", "from_round", "previous", "members", "topology", "graph", "signatures")

Topology = tuple[TopologySettings, TopologyFile | None]  # and the content of its file, if it is one


def with_member(before: FederationSettings, member: Member) -> tuple[Member, ...]:
    """The members with one more.

    Raises:
        FederationError: there is a member of this name.
    """
    if member.name in before.names:
        raise FederationError(f"federation {before.name!r} has a member {member.name!r} already; see rotate-key")
    return (*before.members, member)


def without_member(before: FederationSettings, name: str) -> tuple[Member, ...]:
    """The members with one less.

    Raises:
        FederationError: there is no member of this name, or only one would stay.
    """
    _known(before, name)
    if len(before.members) == 2:
        raise FederationError(f"federation {before.name!r} has two members, and none can leave it")
    return tuple(member for member in before.members if member.name != name)


def with_keys(before: FederationSettings, public: PublicKeys) -> tuple[Member, ...]:
    """The members, one of them with new keys.

    Raises:
        FederationError: there is no member of this name, or it has these very keys.
    """
    old = _known(before, public.name)
    new = old.model_copy(update={"curve_key": public.curve_key, "signing_key": public.signing_key})
    if new == old:
        raise FederationError(f"member {public.name!r} has these keys already; make new ones with `flop-p2p keygen`")
    return tuple(new if member.name == public.name else member for member in before.members)


def extended(before: FederationSettings, members: Sequence[Member], topology: Topology | None) -> FederationSettings:
    """A federation that nobody has run yet with other members: the same revision, and no signatures.

    Raises:
        FederationError: it is a later revision, or the members or the topology cannot work together.
    """
    if before.revision != 1:
        raise FederationError(
            f"revision {before.revision} is signed; only a federation that never ran changes in place"
        )
    return _changed(before, {"members": members}, topology)


def propose(
    before: FederationSettings, members: Sequence[Member], from_round: int, topology: Topology | None = None
) -> FederationSettings:
    """The next revision, not signed yet.

    Args:
        from_round: first round in which it holds, counted from 0 (messages for people count from 1).
        topology: the new one, where the present one does not go with the new members.

    Raises:
        FederationError: it does not hold from a later round, or its members or its topology cannot work together.
    """
    values = {"members": members, "revision": before.revision + 1, "from_round": from_round, "previous": before.id}
    after = _changed(before, values, topology)
    _check_succession(before, after)
    return after


def check_draft(before: FederationSettings, after: FederationSettings) -> None:
    """Refuse a revision that does not follow another, whoever has signed it.

    Raises:
        FederationError: it is not the next one or changes more than members and topology, or its members or its
            topology cannot work together.
    """
    _check_succession(before, after)
    check_federation(after, signed=False)


def check_revision(before: FederationSettings, after: FederationSettings) -> None:
    """Refuse a revision that does not follow another, or that not everybody has signed.

    Raises:
        FederationError: as in `check_draft`, or signatures are missing; one line that names them.
    """
    check_draft(before, after)
    if missing := missing_signatures(after, before):
        raise FederationError(f"{_named(after)} is not signed by {', '.join(missing)}")


def chain(base: FederationSettings, revisions: Iterable[FederationSettings]) -> tuple[FederationSettings, ...]:
    """``base`` and the revisions after it in their order, each checked; earlier ones are left out.

    Raises:
        FederationError: a revision does not follow the one before, or there are two of one number.
    """
    found = [base]
    for after in sorted(revisions, key=lambda each: each.revision):
        if after.revision < base.revision or after.id == found[-1].id:
            continue
        if after.revision == found[-1].revision:
            raise FederationError(f"there are two different revisions {after.revision} of federation {base.name!r}")
        check_revision(found[-1], after)
        found.append(after)
    return tuple(found)


def changes(before: FederationSettings, after: FederationSettings) -> list[str]:
    """What a revision changes, a line each, for people who are to sign or adopt it."""
    lines = []
    for name in sorted({*before.names, *after.names}):
        if name not in before.names:
            lines.append(f"member {name} is new: {_described(after.member(name))}")
        elif name not in after.names:
            lines.append(f"member {name} leaves")
        else:
            old, new = before.member(name).model_dump(), after.member(name).model_dump()
            lines += [_changed_key(name, key, old[key], new[key]) for key in old if old[key] != new[key]]
    if (before.topology, before.graph) != (after.topology, after.graph):
        lines.append(f"the topology was {before.topology.name} and becomes {after.topology.name}")
    if after.revision > before.revision:
        lines.append(f"it holds from round {after.from_round + 1}")
    return lines


def _changed_key(name: str, key: str, old: Any, new: Any) -> str:
    """Addresses are shown: signatures do not cover them, so whoever carries the file can change them."""
    if key not in ("control", "bulk"):
        return f"member {name} has another {key}"
    return f"member {name} has another {key} address, which nobody signs: {old or 'none'} becomes {new or 'none'}"


def _described(member: Member) -> str:
    public = PublicKeys(name=member.name, curve_key=member.curve_key, signing_key=member.signing_key)
    return f"{member.control or 'only dials out'}, fingerprint of its keys: {public.fingerprint}"


def _changed(before: FederationSettings, values: dict[str, Any], topology: Topology | None) -> FederationSettings:
    if topology is not None:
        values |= {"topology": topology[0], "graph": topology[1]}
    update = before.model_copy(update={**values, "signatures": ()})
    after = validate(FederationSettings, update.model_dump(), "the changed federation")
    check_federation(after, signed=False)
    return after


def _check_succession(before: FederationSettings, after: FederationSettings) -> None:
    if after.revision != before.revision + 1 or after.previous != before.id:
        raise FederationError(
            f"{_named(after)} does not follow revision {before.revision} that is known here; "
            "adopt the revisions between them first, or compare the federation's fingerprint with the others"
        )
    if after.from_round <= before.from_round:
        raise FederationError(
            f"{_named(after)} holds from round {after.from_round + 1}, "
            f"which must be later than {before.from_round + 1} of the one before"
        )
    unchanged = after.model_copy(update={key: getattr(before, key) for key in CHANGING})
    if changed := first_difference(before, unchanged):
        raise FederationError(f"{_named(after)} changes more than members and topology: {changed}")


def _known(before: FederationSettings, name: str) -> Member:
    if name not in before.names:
        known = ", ".join(before.names)
        raise FederationError(f"federation {before.name!r} has no member {name!r}; its members are {known}")
    return before.member(name)


def _named(revision: FederationSettings) -> str:
    return f"revision {revision.revision} of federation {revision.name!r}"
