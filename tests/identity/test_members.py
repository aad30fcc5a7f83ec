"""Whether members can work together: each thing that can be wrong is found and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flop_p2p.config import (
    Edge,
    FederationSettings,
    GossipSettings,
    Member,
    PrivacySettings,
    TopologyFile,
    TopologySettings,
    TrainingSettings,
)
from flop_p2p.config.federation import MAX_CANONICAL
from flop_p2p.errors import FederationError, IdentityError
from flop_p2p.gossip.plan import build_plan
from flop_p2p.identity.keys import Keys, generate, load_keys
from flop_p2p.identity.members import check_federation, exchanging_pairs, inspect_federation, own_member
from flop_p2p.wire.messages import Hello

Make = Callable[..., FederationSettings]
MakeMember = Callable[..., Member]

DIALS = {"control": None, "bulk": None}
FINITE_TIME = {"topology": TopologySettings(name="base:1")}


def graph(*edges: Edge, sites: tuple[str, ...] = ("east", "north", "süd", "west")) -> dict[str, Any]:
    return {"topology": TopologySettings(name="net.toml"), "graph": TopologyFile(sites=sites, edges=edges)}


def test_a_good_federation_passes_every_check(federation: Make) -> None:
    findings = check_federation(federation())
    assert all(finding.ok and finding.text and "\n" not in finding.text for finding in findings)
    assert [finding.check for finding in findings][-1] == "signatures"
    assert "signatures" not in [finding.check for finding in check_federation(federation(), signed=False)]


def test_a_federation_that_no_greeting_can_carry_is_refused(federation: Make) -> None:
    from_wire = next(
        rule.max_length for rule in Hello.model_fields["federation"].metadata if hasattr(rule, "max_length")
    )
    assert from_wire == MAX_CANONICAL
    room = MAX_CANONICAL - len(federation().canonical)
    samples = federation().samples
    longest = samples.model_copy(update={"class_names": ("a", "b", "c" * (room + 1))})
    assert len(federation(samples=longest).canonical) == MAX_CANONICAL
    check_federation(federation(samples=longest))
    longer = samples.model_copy(update={"class_names": ("a", "b", "c" * (room + 2))})
    with pytest.raises(FederationError, match="524,289 characters long, and the greeting of a node carries 524,288"):
        check_federation(federation(samples=longer))


def of(*names: str, **values: Any) -> Callable[[Make, MakeMember], FederationSettings]:
    """A federation of these members; those in capitals only dial out, the one named `hub` is the server."""

    def make(federation: Make, member: MakeMember) -> FederationSettings:
        members = tuple(
            member(
                name.lower(),
                role="server" if name.lower().startswith("hub") else "site",
                **(DIALS if name.isupper() else {}),
            )
            for name in names
        )
        return federation(members=members, **values)

    return make


def besides(name: str, **values: Any) -> Callable[[Make, MakeMember], FederationSettings]:
    """A federation of `east`, `west` and this member with these values."""
    return lambda federation, member: federation(members=(member("east"), member(name, **values), member("west")))


def same(field: str) -> Callable[[Make, MakeMember], FederationSettings]:
    """A federation of three in which `east` and `north` share a key."""
    return lambda federation, member: besides("north", **{field: getattr(member("east"), field)})(federation, member)


EVERYONE = ("east", "north", "süd", "west")
SECOND = {"revision": 2, "from_round": 3, "previous": "0" * 64}
MASKED = PrivacySettings(masking="pairwise")
BY_SAMPLES = TopologySettings(weighting="samples")

WRONG = {
    "protocol": (of(*EVERYONE, protocol=2), "protocol", "protocol version 2, this program speaks 1"),
    "no key": (besides("north", curve_key="#" * 40), "keys", "the curve_key of 'north' is no key"),
    "one curve key": (same("curve_key"), "keys", "'east' and 'north' have the same curve_key"),
    "one signing key": (same("signing_key"), "keys", "'east' and 'north' have the same signing_key"),
    "needless server": (of(*EVERYONE, "hub"), "roles", "method p2p-flop has no server, but 'hub' is one"),
    "no server": (of(*EVERYONE, method="flop"), "roles", "one member with role 'server', not 0 (none)"),
    "two servers": (of("east", "hub", "hub2", method="flop"), "roles", "not 2 ('hub', 'hub2')"),
    "early stopping": (of(*EVERYONE, training=TrainingSettings(early_stopping=3)), "training", "early_stopping"),
    "participation": (
        of("east", "hub", method="flop", training=TrainingSettings(participation=0.5)),
        "training",
        "training.participation is for simulations",
    ),
    "compression with a server": (
        of("east", "hub", method="flop", gossip=GossipSettings(compression="int8")),
        "training",
        "gossip.compression is for gossip; method flop has a server",
    ),
    "changes over changing edges": (
        of(
            *EVERYONE,
            topology=TopologySettings(name="one-peer-exponential"),
            gossip=GossipSettings(compression="top-k"),
        ),
        "topology",
        "top-k needs the same edges in all rounds; use bfloat16 or int8",
    ),
    "masking with a server": (
        of("east", "hub", method="flop", privacy=MASKED),
        "training",
        "privacy.masking is for gossip: with method flop each site receives from one sender",
    ),
    "masking with one neighbour": (
        of(*EVERYONE, privacy=MASKED, topology=TopologySettings(name="path")),
        "topology",
        "topology 'path': 'east' receives from 1 other in round 1; with privacy.masking every site needs two senders",
    ),
    "masking of pairs": (
        of(*EVERYONE, privacy=MASKED, topology=TopologySettings(name="one-peer-exponential")),
        "topology",
        "receives from 1 other in round 1; with privacy.masking every site needs two senders",
    ),
    "unknown samples": (of(*EVERYONE, topology=BY_SAMPLES), "samples", "number of training samples of 'east'"),
    "unknown samples of flop": (of("east", "hub", method="flop", topology=BY_SAMPLES), "samples", "samples of 'east'"),
    "no such topology": (of(*EVERYONE, topology=TopologySettings(name="rnig")), "topology", "did you mean 'ring'"),
    "no such size": (
        of("east", "north", "west", topology=TopologySettings(name="hypercube")),
        "topology",
        "'hypercube' does not exist for 3 sites",
    ),
    "sites of another file": (
        of(*EVERYONE, **graph(Edge("a", "b"), sites=("a", "b"))),
        "topology",
        "net.toml: its 2 sites are not the 4 sites of the federation; only in the file: 'a', 'b'",
    ),
    "a wrong file": (of(*EVERYONE, **graph(Edge("east", "north"))), "topology", "net.toml: the graph is disconnected"),
    "many neighbours": (
        of(*EVERYONE, gossip=GossipSettings(min_neighbours=3)),
        "topology",
        "gossip.min_neighbours is 3, but 'east' has 2 neighbours",
    ),
    "no address for bodies": (besides("north", bulk=None), "addresses", "'north' has an address for messages and none"),
    "only one for bodies": (besides("north", control=None), "addresses", "for bodies, but it has none for messages"),
    "needless address": (
        of(*EVERYONE, gossip=GossipSettings(bulk="curve")),
        "addresses",
        "'east' has an address for bodies, but gossip.bulk = 'curve'",
    ),
    "one address": (
        besides("north", control="tcp://east.example:5701"),
        "addresses",
        "bulk of 'east' and control of 'north' are the same address tcp://east.example:5701",
    ),
    "address of nobody": (
        besides("north", control="tcp://0.0.0.0:5700"),
        "addresses",
        "control of 'north': nobody can connect to tcp://0.0.0.0:5700",
    ),
    "two that dial": (
        of("EAST", "NORTH", "süd", "west"),
        "connections",
        "'east' and 'north' are neighbours and both only dial out, so neither can reach the other",
    ),
    "two that dial in a later round": (
        of("EAST", "north", "SÜD", "west", **FINITE_TIME),
        "connections",
        "'east' and 'süd'",
    ),
    "two that dial in the first round": (
        of("EAST", "NORTH", "süd", "west", **FINITE_TIME),
        "connections",
        "and 'north'",
    ),
    "two that may meet": (
        of("EAST", "north", "SÜD", "west", topology=TopologySettings(name="epidemic:1")),
        "connections",
        "'east' and 'süd' are neighbours and both only dial out",
    ),
    "a site without a way to the server": (
        of("EAST", "HUB", "west", method="flop"),
        "connections",
        "'east' and 'hub' are neighbours and both only dial out",
    ),
    "a first revision with a past": (of(*EVERYONE, previous="0" * 64), "revision", "revision 1 has no `previous`"),
    "a first revision for later": (of(*EVERYONE, from_round=3), "revision", "revision 1 has no `previous`"),
    "a second one without a past": (
        of(*EVERYONE, revision=2, from_round=3),
        "revision",
        "revision 1 has no `previous`",
    ),
    "after the last round": (
        of(*EVERYONE, **{**SECOND, "from_round": 20}),
        "revision",
        "would hold from round 21, but there are 20 rounds",
    ),
    "unsigned": (of(*EVERYONE, **SECOND), "signatures", "revision 2 is not signed by east, north, süd, west"),
}


@pytest.mark.parametrize(("make", "check", "text"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(
    federation: Make,
    member: MakeMember,
    make: Callable[[Make, MakeMember], FederationSettings],
    check: str,
    text: str,
) -> None:
    settings = make(federation, member)
    failed = [finding for finding in inspect_federation(settings) if not finding.ok]
    assert failed[0].check == check
    assert text in failed[0].text
    with pytest.raises(FederationError) as error:
        check_federation(settings)
    assert error.value.exit_code == 11
    assert str(error.value) == f"federation 'retina': {failed[0].text}"
    assert "\n" not in str(error.value)


def test_two_that_dial_may_be_members_if_they_are_no_neighbours(federation: Make, member: MakeMember) -> None:
    _, north, _, west = federation().members
    settings = federation(members=(member("east", **DIALS), north, member("süd", **DIALS), west))
    assert ("east", "süd") not in exchanging_pairs(settings)
    check_federation(settings)


def test_centralized_flop_and_one_port_pass(federation: Make, member: MakeMember) -> None:
    members = (member("east", **DIALS), member("north", **DIALS), member("hub", role="server", bulk=None))
    check_federation(federation(method="flop", members=members, gossip=GossipSettings(bulk="curve")))


def test_weighting_by_samples_passes_with_all_numbers(federation: Make, member: MakeMember) -> None:
    members = tuple(member(name, samples=number) for number, name in enumerate(("east", "north", "west"), 5))
    findings = check_federation(federation(members=members, topology=TopologySettings(weighting="samples")))
    assert "18 training samples in all" in [finding.text for finding in findings]


def test_pairs_of_all_rounds(federation: Make, member: MakeMember) -> None:
    ring = {("east", "north"), ("north", "süd"), ("süd", "west"), ("east", "west")}
    everyone = {*ring, ("east", "süd"), ("north", "west")}
    assert exchanging_pairs(federation()) == ring
    assert exchanging_pairs(federation(members=federation().members[::-1])) == ring
    assert exchanging_pairs(federation(topology=TopologySettings(name="full"))) == everyone
    assert exchanging_pairs(federation(topology=TopologySettings(name="epidemic:1"))) == everyone
    one_way = TopologyFile(sites=("east", "north"), edges=(Edge("north", "east"), Edge("east", "north")), directed=True)
    two = federation(members=federation().members[:2], topology=TopologySettings(name="x.toml"), graph=one_way)
    assert exchanging_pairs(two) == {("east", "north")}
    star = federation(method="flop", members=(*federation().members[:2], member("hub", role="server")))
    assert exchanging_pairs(star) == {("east", "hub"), ("hub", "north")}


def test_a_round_of_many_counts(federation: Make) -> None:
    pairs = exchanging_pairs(federation(**FINITE_TIME))
    assert len(pairs) == 4, "two pairs in each of two rounds"


@pytest.mark.parametrize(
    "name", ["ring", "path", "base:1", "one-peer-exponential", "exponential", "epidemic:1", "star"]
)
@pytest.mark.parametrize("method", ["p2p-flop", "flop"])
def test_pairs_are_the_neighbours_of_the_plan(federation: Make, member: MakeMember, name: str, method: str) -> None:
    hub = (member("hub", role="server"),) if method == "flop" else ()
    settings = federation(members=(*federation().members, *hub), topology=TopologySettings(name=name), method=method)
    planned = {
        (min(site, other), max(site, other))
        for site in settings.names
        for other in build_plan(settings, site).neighbours(0)
    }
    assert exchanging_pairs(settings) == planned


# Whose keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    generate(tmp_path / "keys", "east")
    return load_keys(tmp_path / "keys")


def test_own_keys_are_known(federation: Make, member: MakeMember, keys: Keys) -> None:
    own = member("east", curve_key=keys.public.curve_key, signing_key=keys.public.signing_key)
    settings = federation(members=(own, *federation().members[1:]))
    assert own_member(settings, keys, "east") == own
    with pytest.raises(
        IdentityError, match="not the ones that federation 'retina' knows of 'west'; they are those of 'east'"
    ):
        own_member(settings, keys, "west")
    with pytest.raises(IdentityError, match="has no member 'nord'; its members are east, north, süd, west"):
        own_member(settings, keys, "nord")


@pytest.mark.parametrize("field", ["curve_key", "signing_key"])
def test_either_key_of_another_is_refused(federation: Make, member: MakeMember, keys: Keys, field: str) -> None:
    values = {"curve_key": keys.public.curve_key, "signing_key": keys.public.signing_key}
    del values[field]
    settings = federation(members=(member("east", **values), *federation().members[1:]))
    with pytest.raises(IdentityError, match="nor those of another member") as error:
        own_member(settings, keys, "east")
    assert error.value.exit_code == 10
