"""Revisions: only the next one, only members and topology, only with everybody's signature."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from flop_p2p.config import (
    Edge,
    FederationSettings,
    GossipSettings,
    Member,
    TopologyFile,
    TopologySettings,
    load_federation,
)
from flop_p2p.errors import FederationError
from flop_p2p.identity.files import adopted_revisions, federation_toml, store_revision, write_federation
from flop_p2p.identity.keys import PublicKeys
from flop_p2p.identity.members import check_federation
from flop_p2p.identity.revisions import (
    chain,
    changes,
    check_draft,
    check_revision,
    extended,
    propose,
    with_keys,
    with_member,
    without_member,
)
from flop_p2p.identity.signatures import CONTEXT, is_signed, missing_signatures, sign

Make = Callable[..., FederationSettings]
MakeMember = Callable[..., Member]
SignAll = Callable[..., FederationSettings]
Key = Callable[[str], Ed25519PrivateKey]


def public(member: Member) -> PublicKeys:
    return PublicKeys(name=member.name, curve_key=member.curve_key, signing_key=member.signing_key)


@pytest.fixture(scope="module")
def first(federation: Make) -> FederationSettings:
    return federation()


@pytest.fixture(scope="module")
def grown(first: FederationSettings, member: MakeMember) -> FederationSettings:
    """The next revision, with a fifth hospital, not signed yet."""
    return propose(first, with_member(first, member("fifth")), 5)


@pytest.fixture(scope="module")
def rotated(first: FederationSettings, member: MakeMember) -> FederationSettings:
    """The next revision, with new keys of `north`, not signed yet."""
    return propose(first, with_keys(first, public(member("north", keys="new north"))), 7)


ROTATION = [("east", "east"), ("north", "north"), ("north", "new north"), ("süd", "süd"), ("west", "west")]


# Proposals


def test_a_proposal_is_complete_and_follows(first: FederationSettings, grown: FederationSettings) -> None:
    assert (grown.revision, grown.from_round, grown.previous) == (2, 5, first.id)
    assert grown.names == ("east", "fifth", "north", "süd", "west")
    assert [each for each in grown.members if each.name != "fifth"] == list(first.members)
    assert grown.id != first.id
    check_draft(first, grown)


def test_members_leave_and_change_keys(first: FederationSettings, member: MakeMember) -> None:
    assert propose(first, without_member(first, "süd"), 1).names == ("east", "north", "west")
    new = member("north", keys="new north", control=None, bulk=None)
    after = propose(first, with_keys(first, public(new)), 1)
    assert after.member("north").curve_key == new.curve_key
    assert after.member("north").signing_key == new.signing_key
    assert after.member("north").control == first.member("north").control, "a public.toml has no address"


def test_what_cannot_be_proposed(first: FederationSettings, member: MakeMember) -> None:
    with pytest.raises(FederationError, match="has a member 'east' already"):
        with_member(first, member("east", keys="other"))
    for change in (lambda: without_member(first, "fifth"), lambda: with_keys(first, public(member("fifth")))):
        with pytest.raises(FederationError, match="has no member 'fifth'; its members are east, north, süd, west"):
            change()
    with pytest.raises(FederationError, match="has these keys already"):
        with_keys(first, public(member("east")))
    with pytest.raises(FederationError, match="would hold from round 21, but there are 20 rounds"):
        propose(first, with_member(first, member("fifth")), 20)
    with pytest.raises(FederationError, match="revision 1 has no `previous`"):
        propose(first, with_member(first, member("fifth")), 0)
    with pytest.raises(FederationError, match="have the same curve_key"):
        propose(first, with_member(first, member("fifth", keys="east")), 5)


def test_of_two_members_none_can_leave(federation: Make) -> None:
    two = federation(members=federation().members[:2])
    with pytest.raises(FederationError, match="has two members, and none can leave"):
        without_member(two, "east")


def test_a_topology_with_names_must_change_too(federation: Make, member: MakeMember) -> None:
    path = tuple(Edge(one, other) for one, other in (("east", "north"), ("north", "süd"), ("süd", "west")))
    sites = ("east", "north", "süd", "west")
    before = federation(topology=TopologySettings(name="net.toml"), graph=TopologyFile(sites=sites, edges=path))
    members = with_member(before, member("fifth"))
    with pytest.raises(
        FederationError, match=r"net\.toml: its 4 sites are not the 5 .* only in the federation: 'fifth'"
    ):
        propose(before, members, 5)
    longer = TopologyFile(sites=(*sites, "fifth"), edges=(*path, Edge("west", "fifth")))
    after = propose(before, members, 5, (TopologySettings(name="new.toml"), longer))
    assert after.graph == longer
    assert changes(before, after)[-2] == "the topology was net.toml and becomes new.toml"
    assert propose(before, members, 5, (TopologySettings(name="ring"), None)).graph is None


def test_before_the_first_run_the_file_itself_grows(
    first: FederationSettings, member: MakeMember, sign_all: SignAll
) -> None:
    after = extended(first, with_member(first, member("fifth")), None)
    assert (after.revision, after.previous, after.from_round) == (1, None, 0)
    assert "fifth" in after.names
    later = sign_all(propose(first, with_member(first, member("sixth")), 3))
    with pytest.raises(FederationError, match="only a federation that never ran changes in place"):
        extended(later, with_member(later, member("fifth")), None)


def test_changes_are_told_in_words(first: FederationSettings, member: MakeMember) -> None:
    members = (
        member("east", keys="new east"),
        first.member("north").model_copy(update={"control": "tcp://moved.example:1"}),
        first.member("west"),
        member("fifth", control=None, bulk=None),
    )
    after = propose(first, members, 5, (TopologySettings(name="full"), None))
    assert changes(first, after) == [
        "member east has another curve_key",
        "member east has another signing_key",
        f"member fifth is new: only dials out, fingerprint of its keys: {public(member('fifth')).fingerprint}",
        "member north has another control address, which nobody signs: "
        "tcp://north.example:5700 becomes tcp://moved.example:1",
        "member süd leaves",
        "the topology was ring and becomes full",
        "it holds from round 6",
    ]


# Signatures


@pytest.mark.parametrize("kind", ["grown", "rotated", "shrunk"])
def test_a_revision_that_all_signed_is_accepted(
    first: FederationSettings, grown: FederationSettings, rotated: FederationSettings, sign_all: SignAll, kind: str
) -> None:
    shrunk = propose(first, without_member(first, "west"), 2)
    after = {"grown": grown, "shrunk": shrunk, "rotated": rotated}[kind]
    signed = sign_all(after, ROTATION if kind == "rotated" else None)
    check_revision(first, signed)
    check_federation(signed)
    assert signed.id == after.id
    assert missing_signatures(signed, first) == []


@pytest.mark.parametrize("missing", ["east", "fifth", "north", "süd", "west"])
def test_one_missing_signer_is_named(
    first: FederationSettings, grown: FederationSettings, sign_all: SignAll, missing: str
) -> None:
    signed = sign_all(grown, [(name, name) for name in grown.names if name != missing])
    with pytest.raises(FederationError, match=f"revision 2 of federation 'retina' is not signed by {missing}$"):
        check_revision(first, signed)
    with pytest.raises(FederationError, match=f"revision 2 is not signed by {missing}$"):
        check_federation(signed)


@pytest.mark.parametrize("number", range(len(ROTATION)))
def test_a_changed_key_signs_with_both(
    first: FederationSettings, rotated: FederationSettings, sign_all: SignAll, number: int
) -> None:
    name, key = ROTATION[number]
    signed = sign_all(rotated, [pair for pair in ROTATION if pair != (name, key)])
    missing = "north with its earlier key" if key == "north" else name
    with pytest.raises(FederationError, match=f"is not signed by {missing}$"):
        check_revision(first, signed)


def test_a_member_that_leaves_need_not_sign(first: FederationSettings, sign_all: SignAll) -> None:
    after = propose(first, without_member(first, "west"), 2)
    assert missing_signatures(after, first) == ["east", "north", "süd"]
    check_revision(first, sign_all(after))


@pytest.mark.parametrize("name", ["east", "west"])
def test_one_cannot_sign_for_another(
    first: FederationSettings, grown: FederationSettings, sign_all: SignAll, name: str
) -> None:
    signed = sign_all(grown, [(each, "north" if each == name else each) for each in grown.names])
    with pytest.raises(FederationError, match=f"is not signed by {name}$"):
        check_revision(first, signed)


def test_a_signature_counts_for_the_member_that_it_names(
    first: FederationSettings, grown: FederationSettings, sign_all: SignAll
) -> None:
    signed = sign_all(grown)
    renamed = [s.model_copy(update={"member": "west"}) if s.member == "east" else s for s in signed.signatures]
    with pytest.raises(FederationError, match=r"is not signed by east$"):
        check_revision(first, signed.model_copy(update={"signatures": tuple(renamed)}))


@given(data=st.data())
def test_any_flipped_bit_of_a_signature_is_refused(
    first: FederationSettings, grown: FederationSettings, sign_all: SignAll, data: st.DataObject
) -> None:
    signed = sign_all(grown)
    index = data.draw(st.integers(0, len(signed.signatures) - 1))
    bit = data.draw(st.integers(0, 511))
    one = signed.signatures[index]
    flipped = (int(one.signature, 16) ^ (1 << bit)).to_bytes(64, "big").hex()
    signatures = list(signed.signatures)
    signatures[index] = one.model_copy(update={"signature": flipped})
    with pytest.raises(FederationError, match=f"is not signed by {one.member}$"):
        check_revision(first, signed.model_copy(update={"signatures": tuple(signatures)}))


def test_signatures_hold_for_one_revision_only(
    first: FederationSettings, grown: FederationSettings, sign_all: SignAll
) -> None:
    signed = sign_all(grown)
    later = grown.model_copy(update={"from_round": 6, "signatures": signed.signatures})
    with pytest.raises(FederationError, match="not signed by east, fifth, north, süd, west"):
        check_revision(first, later)


def test_a_signature_is_bound_to_its_purpose(grown: FederationSettings, signing_key: Key) -> None:
    signed = sign(grown, "east", signing_key("east"))
    text = b"flop-p2p federation revision" + bytes.fromhex(grown.id)
    signing_key("east").public_key().verify(bytes.fromhex(signed.signatures[0].signature), text)
    assert text.startswith(CONTEXT)


def test_signing_again_changes_nothing_and_old_drafts_go(grown: FederationSettings, signing_key: Key) -> None:
    once = sign(grown, "east", signing_key("east"))
    assert sign(once, "east", signing_key("east")).signatures == once.signatures
    both = sign(sign(once, "north", signing_key("north")), "east", signing_key("new east"))
    assert [each.member for each in both.signatures] == ["north", "east", "east"]
    for number in range(6, 12):
        redrafted = both.model_copy(update={"from_round": number})
        both = sign(redrafted, "east", signing_key("east"))
    assert [each.member for each in both.signatures] == ["north", "east", "east"]
    assert is_signed(both, "east", both.member("east").signing_key)


# What may follow what


def test_only_the_next_revision_follows(
    first: FederationSettings, grown: FederationSettings, sign_all: SignAll, member: MakeMember
) -> None:
    signed = sign_all(grown)
    second = propose(signed, with_member(signed, member("sixth")), 8)
    check_revision(signed, sign_all(second))
    for before, after in ((first, second), (second, signed), (signed, signed), (first, first)):
        with pytest.raises(FederationError, match="does not follow revision"):
            check_revision(before, sign_all(after))
    other = first.model_copy(update={"seed": 1})
    with pytest.raises(FederationError, match="revision 2 of federation 'retina' does not follow revision 1"):
        check_revision(other, signed)


def test_a_revision_holds_later_than_the_one_before(
    first: FederationSettings, grown: FederationSettings, member: MakeMember
) -> None:
    with pytest.raises(FederationError, match="holds from round 6, which must be later than 6"):
        propose(grown, with_member(grown, member("sixth")), 5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"gossip": GossipSettings(deadline=1)}, "gossip.deadline was 60.0 and is now 1.0"),
        ({"name": "other"}, "name was 'retina' and is now 'other'"),
        ({"method": "p2p-flop-alt"}, "method was 'p2p-flop'"),
    ],
)
def test_nothing_but_members_and_topology_changes(
    first: FederationSettings, grown: FederationSettings, sign_all: SignAll, change: dict[str, Any], text: str
) -> None:
    with pytest.raises(FederationError, match=f"changes more than members and topology: {text}"):
        check_revision(first, sign_all(grown.model_copy(update=change)))


def test_a_revision_must_be_able_to_run(first: FederationSettings, sign_all: SignAll) -> None:
    lonely = [each.model_copy(update={"control": None, "bulk": None}) for each in first.members]
    after = first.model_copy(update={"revision": 2, "from_round": 3, "previous": first.id, "members": tuple(lonely)})
    with pytest.raises(FederationError, match="both only dial out"):
        check_revision(first, sign_all(after))


# The chain


@pytest.fixture
def three(
    first: FederationSettings, grown: FederationSettings, member: MakeMember, sign_all: SignAll
) -> list[FederationSettings]:
    second = sign_all(grown)
    third = sign_all(propose(second, without_member(second, "west"), 9))
    return [first, second, third]


def test_a_chain_is_put_in_order(three: list[FederationSettings]) -> None:
    first, second, third = three
    assert chain(first, []) == (first,)
    assert chain(first, [third, second]) == (first, second, third)
    assert chain(first, [third, second, first, second]) == (first, second, third)
    assert chain(second, [first, third, second]) == (second, third), "a newer file takes the place of the first one"


def test_a_chain_with_a_gap_or_a_fork_is_refused(
    three: list[FederationSettings], member: MakeMember, sign_all: SignAll
) -> None:
    first, second, third = three
    with pytest.raises(FederationError, match="revision 3 of federation 'retina' does not follow revision 1"):
        chain(first, [third])
    fork = sign_all(propose(first, with_member(first, member("sixth")), 5))
    with pytest.raises(FederationError, match="two different revisions 2"):
        chain(first, [second, fork, third])
    with pytest.raises(FederationError, match="two different revisions 2"):
        chain(second, [fork])
    with pytest.raises(FederationError, match="is not signed by north"):
        chain(first, [second.model_copy(update={"signatures": [s for s in second.signatures if s.member != "north"]})])


# Files


def test_a_federation_survives_its_file(tmp_path: Path, three: list[FederationSettings], federation: Make) -> None:
    edges = (Edge("east", "north", 0.5), Edge("north", "süd", 0.25), Edge("süd", "west", 0.25))
    weighted = federation(
        topology=TopologySettings(name="net.toml"),
        graph=TopologyFile(sites=("east", "north", "süd", "west"), edges=edges, own_weights={"east": 0.5}),
    )
    bare = weighted.model_copy(
        update={"graph": TopologyFile(sites=weighted.names, edges=tuple(edge._replace(weight=None) for edge in edges))}
    )
    for number, settings in enumerate((*three, weighted, bare)):
        write_federation(tmp_path / f"{number}.toml", settings)
        again = load_federation(tmp_path / f"{number}.toml")
        assert again == settings
        assert again.id == settings.id


def test_a_file_is_not_overwritten_unless_asked(tmp_path: Path, three: list[FederationSettings]) -> None:
    path = tmp_path / "federation.toml"
    write_federation(path, three[0])
    with pytest.raises(FederationError, match="exists already") as error:
        write_federation(path, three[1])
    assert error.value.exit_code == 11
    assert load_federation(path) == three[0]
    write_federation(path, three[1], replace=True)
    assert load_federation(path) == three[1]
    assert [each.name for each in tmp_path.iterdir()] == ["federation.toml"]
    with pytest.raises(FederationError, match="cannot be written \\(No such file or directory\\)"):
        write_federation(tmp_path / "nowhere" / "federation.toml", three[0])


def test_adopted_revisions_are_found_in_order(tmp_path: Path, three: list[FederationSettings]) -> None:
    assert adopted_revisions(tmp_path / "state") == []
    assert store_revision(tmp_path / "state", three[2]) == tmp_path / "state" / "revisions" / "3.toml"
    store_revision(tmp_path / "state", three[1])
    ten = three[1].model_copy(update={"revision": 10})
    store_revision(tmp_path / "state", ten)
    assert adopted_revisions(tmp_path / "state") == [three[1], three[2], ten]


def test_no_secret_is_in_a_federation_file(three: list[FederationSettings], signing_key: Key) -> None:
    for settings in three:
        text = federation_toml(settings)
        assert all(signing_key(name).private_bytes_raw().hex() not in text for name in settings.names)
        assert all(settings.member(name).signing_key in text for name in settings.names)
