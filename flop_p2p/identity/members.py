"""Whether the members of a federation can work together: their keys, roles, addresses and topology."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from zmq.utils import z85

from flop_p2p.config import FederationSettings, Member
from flop_p2p.config.federation import MAX_CANONICAL, PROTOCOL_VERSION
from flop_p2p.errors import FederationError, FlopError, IdentityError
from flop_p2p.identity.difference import difference
from flop_p2p.identity.keys import Keys
from flop_p2p.identity.signatures import missing_signatures
from flop_p2p.topology import federation_schedule

__all__ = ["Finding", "check_federation", "difference", "exchanging_pairs", "inspect_federation", "own_member"]

NOWHERE = ("*", "0.0.0.0", "[::]")  # hosts at which one can listen, but not be reached

Pair = tuple[str, str]  # two members, ascending by name


@dataclass(frozen=True)
class Finding:
    """What one check of a federation found; ``text`` is one line, and says how to mend it if it is not ``ok``."""

    check: str
    text: str
    ok: bool


def check_federation(federation: FederationSettings, signed: bool = True) -> list[Finding]:
    """Refuse a federation that cannot run, and tell what was found otherwise.

    Args:
        signed: whether signatures count; without, a revision is a draft that nobody has signed yet.

    Raises:
        FederationError: one line about the first check that failed.
    """
    findings = inspect_federation(federation, signed)
    for finding in findings:
        if not finding.ok:
            raise FederationError(f"federation {federation.name!r}: {finding.text}")
    return findings


def inspect_federation(federation: FederationSettings, signed: bool = True) -> list[Finding]:
    """What every check found, failed ones included; see `check_federation`."""
    checks: dict[str, Callable[[FederationSettings], str]] = {
        "protocol": _check_protocol,
        "keys": _check_keys,
        "roles": _check_roles,
        "training": _check_training,
        "samples": _check_samples,
        "topology": _check_topology,
        "addresses": _check_addresses,
        "connections": _check_connections,
        "revision": _check_revision,
    }
    if signed:
        checks["signatures"] = _check_signatures
    findings = []
    for name, check in checks.items():
        try:
            findings.append(Finding(name, check(federation), ok=True))
        except FlopError as error:
            findings.append(Finding(name, str(error), ok=False))
    return findings


def own_member(federation: FederationSettings, keys: Keys, name: str) -> Member:
    """The member ``name``, whose keys must be these.

    Raises:
        IdentityError: there is no such member, or the keys are not the ones that the federation knows of it.
    """
    if name not in federation.names:
        known = ", ".join(federation.names)
        raise IdentityError(f"federation {federation.name!r} has no member {name!r}; its members are {known}")
    member, public = federation.member(name), keys.public
    for field in ("curve_key", "signing_key"):
        key = getattr(public, field)
        if key == getattr(member, field):
            continue
        owner = next((each.name for each in federation.members if getattr(each, field) == key), None)
        whose = f"they are those of {owner!r}" if owner else "nor those of another member"
        raise IdentityError(
            f"these keys (of {keys.name!r}) are not the ones that federation {federation.name!r} knows of {name!r}; "
            f"{whose}: look at name and keys in site.toml"
        )
    return member


def exchanging_pairs(federation: FederationSettings) -> set[Pair]:
    """Members that exchange bodies in some round. A topology drawn anew in each round may pair any two.

    Raises:
        TopologyError: the topology cannot be built over these members.
    """
    if federation.method == "flop":
        servers = set(federation.names) - set(federation.sites)
        return {_pair(site, server) for site in federation.sites for server in servers}
    schedule = federation_schedule(federation)
    sites = schedule.sites
    if schedule.period is None:
        return {_pair(one, other) for one in sites for other in sites if one < other}
    pairs = set()
    for round_index in range(schedule.period):
        rows, columns = schedule.mixing(round_index).tocoo().coords
        pairs |= {_pair(sites[row], sites[column]) for row, column in zip(rows, columns, strict=True) if row != column}
    return pairs


def _pair(one: str, other: str) -> Pair:
    return (one, other) if one < other else (other, one)


def _check_protocol(federation: FederationSettings) -> str:
    if federation.protocol != PROTOCOL_VERSION:
        raise FederationError(
            f"it is written for protocol version {federation.protocol}, this program speaks {PROTOCOL_VERSION}; "
            "install the same version of flop-p2p everywhere"
        )
    if (size := len(federation.canonical)) > MAX_CANONICAL:
        raise FederationError(
            f"it is {size:,} characters long, and the greeting of a node carries {MAX_CANONICAL:,}; "
            "shorten the topology file or take members out"
        )
    return f"version {PROTOCOL_VERSION}"


def _check_keys(federation: FederationSettings) -> str:
    for member in federation.members:
        try:
            z85.decode(member.curve_key.encode())
        except Exception as error:  # pyzmq lets errors of struct through
            raise FederationError(
                f"the curve_key of {member.name!r} is no key; take it from its public.toml"
            ) from error
    for field in ("curve_key", "signing_key"):
        owners = {member.name: getattr(member, field) for member in federation.members}
        if twice := _named_twice(owners):
            raise FederationError(
                f"{' and '.join(map(repr, twice))} have the same {field}; each site runs `flop-p2p keygen` for itself"
            )
    return f"{len(federation.members)} members, each with keys of its own"


def _check_roles(federation: FederationSettings) -> str:
    servers = [member.name for member in federation.members if member.role == "server"]
    if federation.method != "flop":
        if servers:
            raise FederationError(f"method {federation.method} has no server, but {servers[0]!r} is one")
        return f"{len(federation.sites)} sites without a server"
    if len(servers) != 1:
        named = ", ".join(map(repr, servers)) or "none"
        raise FederationError(f"method flop has one member with role 'server', not {len(servers)} ({named})")
    return f"server {servers[0]!r} and {len(federation.sites)} sites"


def _check_training(federation: FederationSettings) -> str:
    training = federation.training
    if training.early_stopping:
        raise FederationError("training.early_stopping is for simulations; in a federation no site stops by itself")
    if federation.method == "flop" and training.participation < 1:
        raise FederationError(
            "training.participation is for simulations; in a federation all sites train in all rounds"
        )
    if federation.method == "flop" and federation.gossip.compression != "none":
        raise FederationError("gossip.compression is for gossip; method flop has a server, and sends whole bodies")
    if federation.method == "flop" and federation.privacy.masking != "none":
        raise FederationError(
            "privacy.masking is for gossip: with method flop each site receives from one sender, the server"
        )
    return f"{federation.method}, {training.rounds} rounds"


def _check_samples(federation: FederationSettings) -> str:
    if federation.topology.weighting == "uniform":
        return "all sites count the same"
    for name in federation.sites:
        if federation.member(name).samples is None:
            raise FederationError(f"weighting by samples needs the number of training samples of {name!r}")
    return f"{sum(federation.member(name).samples or 0 for name in federation.sites):,} training samples in all"


def _check_topology(federation: FederationSettings) -> str:
    pairs = exchanging_pairs(federation)
    counts = Counter(name for pair in pairs for name in pair)
    needed = federation.gossip.min_neighbours
    for name in federation.sites:
        if counts[name] < needed:
            raise FederationError(f"gossip.min_neighbours is {needed}, but {name!r} has {counts[name]} neighbours")
    few, many = min(counts.values()), max(counts.values())
    topology = "star around the server" if federation.method == "flop" else federation.topology.name
    return f"{topology}, {few if few == many else f'{few} to {many}'} neighbours a member over all rounds"


def _check_addresses(federation: FederationSettings) -> str:
    sealed = federation.gossip.bulk == "sealed"
    for member in federation.members:
        if member.bulk is not None and (member.control is None or not sealed):
            reason = "it has none for messages" if sealed else "gossip.bulk = 'curve' uses the one for messages"
            raise FederationError(f"{member.name!r} has an address for bodies, but {reason}; remove it")
        if sealed and member.control is not None and member.bulk is None:
            raise FederationError(
                f"{member.name!r} has an address for messages and none for bodies; add `bulk` with a second port, "
                "or let all bodies go through one port with gossip.bulk = 'curve'"
            )
    endpoints = {
        f"{kind} of {member.name!r}": endpoint
        for member in federation.members
        for kind, endpoint in (("control", member.control), ("bulk", member.bulk))
        if endpoint is not None
    }
    if twice := _named_twice(endpoints):
        raise FederationError(f"{' and '.join(twice)} are the same address {endpoints[twice[0]]}; give each its own")
    for where, endpoint in endpoints.items():
        if endpoint.removeprefix("tcp://").rpartition(":")[0] in NOWHERE:
            raise FederationError(f"{where}: nobody can connect to {endpoint}; give the host's name or address")
    dialling = [member.name for member in federation.members if member.control is None]
    return f"{len(federation.members) - len(dialling)} accept connections" + (
        f"; only dial out: {', '.join(sorted(dialling))}" if dialling else ""
    )


def _check_connections(federation: FederationSettings) -> str:
    pairs = sorted(exchanging_pairs(federation))
    for one, other in pairs:
        if federation.member(one).control is None and federation.member(other).control is None:
            raise FederationError(
                f"{one!r} and {other!r} are neighbours and both only dial out, so neither can reach the other; "
                "give one of them an address, or choose a topology in which they are not neighbours"
            )
    return f"{len(pairs)}, each with a side that can be dialled"


def _check_revision(federation: FederationSettings) -> str:
    first = federation.revision == 1
    if first != (federation.previous is None) or first != (federation.from_round == 0):
        raise FederationError(
            "revision 1 has no `previous` and no `from_round`, a later one has both; "
            "`flop-p2p federation add-member` writes them"
        )
    if federation.from_round >= federation.training.rounds:
        raise FederationError(
            f"it would hold from round {federation.from_round + 1}, but there are {federation.training.rounds} rounds"
        )
    return f"{federation.revision}, holds from round {federation.from_round + 1}"


def _check_signatures(federation: FederationSettings) -> str:
    if federation.revision == 1:
        return "none needed; compare `flop-p2p federation fingerprint` with all members instead"
    if missing := missing_signatures(federation):
        raise FederationError(f"revision {federation.revision} is not signed by {', '.join(missing)}")
    return f"all {len(federation.members)} members signed"


def _named_twice(values: dict[str, str]) -> list[str]:
    """The keys of the first value that occurs twice; none if all differ."""
    for value, times in Counter(values.values()).items():
        if times > 1:
            return [key for key, other in values.items() if other == value]
    return []
