"""Masks hide each body from its receiver, cancel in the whole sum and only there, and are made for one list only."""

import itertools
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from scipy.stats import chisquare

from flop_p2p.errors import WireError
from flop_p2p.gossip.fixed_point import FixedPoint
from flop_p2p.gossip.masking import Declarations, Neighbourhood, mask
from flop_p2p.topology import fewest_senders
from flop_p2p.wire.encodings import Masked
from flop_p2p.wire.participants import Participant

FIXED = FixedPoint(64.0)
NAMES = ("berlin", "graz", "linz", "wien")
LANES = 4  # bytes of an integer


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys from one seed, so that what these tests say of randomness does not hold today and fail tomorrow."""
    random = Random(5)
    monkeypatch.setattr(X25519PrivateKey, "generate", lambda: X25519PrivateKey.from_private_bytes(random.randbytes(32)))


class Senders:
    """The neighbours of the receiver ``zug``, each with a body of small numbers."""

    def __init__(self, names: Sequence[str] = NAMES, parameters: int = 30_000, round_index: int = 3) -> None:
        self.signing = {name: Ed25519PrivateKey.generate() for name in names}
        keys = {name: (key.public_key().public_bytes_raw(),) for name, key in self.signing.items()}
        self.neighbourhood = Neighbourhood("f" * 64, "zug", round_index, keys)
        self.declarations = {name: Declarations(name, key) for name, key in self.signing.items()}
        draw = np.random.default_rng(0)
        self.bodies = {name: draw.normal(0, 0.05, parameters).astype(np.float32) for name in names}
        self.weight = 1 / (1 + len(names))

    def present(self, *names: str) -> tuple[Participant, ...]:
        return tuple(self.declarations[name].declare(self.neighbourhood) for name in names or self.bodies)

    def plain(self, name: str) -> Masked:
        return FIXED.encode(self.bodies[name], self.weight)

    def masked(self, name: str, participants: Sequence[Participant]) -> Masked:
        _, pads = self.declarations[name].answer(self.neighbourhood, participants)
        integers = self.plain(name)
        mask(integers, pads)
        return integers


def uniform(integers: Masked) -> float:
    """The smallest p-value of chi-squared tests on the bytes at each of the four places of an integer."""
    lanes = integers.view(np.uint8).reshape(-1, LANES)
    return min(chisquare(np.bincount(lanes[:, lane], minlength=256)).pvalue for lane in range(LANES))


def test_the_masks_cancel_in_the_sum_of_all() -> None:
    senders = Senders()
    participants = senders.present()
    total = sum(senders.masked(name, participants).astype(np.uint64) for name in NAMES).astype(np.uint32)
    expected = sum(senders.plain(name).astype(np.uint64) for name in NAMES).astype(np.uint32)
    np.testing.assert_array_equal(total, expected)
    assert uniform(total) < 1e-100  # the sum is what is to be learned


def test_each_message_and_each_sum_that_lacks_one_looks_uniform() -> None:
    senders = Senders()
    participants = senders.present()
    masked = {name: senders.masked(name, participants) for name in NAMES}
    for size in range(1, len(NAMES)):
        for some in itertools.combinations(NAMES, size):
            total = sum(masked[name].astype(np.uint64) for name in some).astype(np.uint32)
            assert uniform(total) > 0.001, some
            assert uniform(total - sum(senders.plain(name) for name in some)) > 0.001, some
    assert uniform(senders.plain("graz")) < 1e-100  # the test can tell


def test_two_senders_suffice_and_the_smallest_bodies_too() -> None:
    for parameters in (1, 65536, 65537):
        senders = Senders(NAMES[:2], parameters)
        participants = senders.present()
        total = senders.masked("berlin", participants) + senders.masked("graz", participants)
        np.testing.assert_array_equal(total, senders.plain("berlin") + senders.plain("graz"))


@pytest.mark.parametrize("other", ["round", "receiver", "federation", "list", "restart"])
def test_no_two_bodies_are_masked_with_the_same_mask(other: str) -> None:
    senders = Senders(parameters=100)
    before = senders.masked("graz", senders.present()) - senders.plain("graz")
    old = senders.neighbourhood
    changes = {
        "round": Neighbourhood(old.federation, old.receiver, 4, old.senders),
        "receiver": Neighbourhood(old.federation, "bern", 3, old.senders),
        "federation": Neighbourhood("e" * 64, "bern", 3, old.senders),
    }
    senders.neighbourhood = changes.get(other, old)
    if other in ("list", "restart"):  # who answers a second list has forgotten the first
        senders.declarations["graz"] = Declarations("graz", senders.signing["graz"])
    names = NAMES if other != "list" else NAMES[:3]
    after = senders.masked("graz", senders.present(*names)) - senders.plain("graz")
    assert (before != after).mean() > 0.9


def test_one_list_is_answered_as_often_as_it_comes_and_no_other() -> None:
    senders = Senders()
    participants = senders.present()
    first = senders.masked("graz", participants)
    np.testing.assert_array_equal(first, senders.masked("graz", participants))
    with pytest.raises(WireError, match="zug asks for a second list of participants in round 4"):
        senders.masked("graz", participants[:3])


def refusals() -> dict[str, tuple[Senders, Sequence[Participant], str]]:
    senders, strangers = Senders(), Senders(("graz", "rom"))
    own = senders.present("graz")
    everyone = senders.present()
    signed_by_another = everyone[0]._replace(signature=everyone[2].signature)
    other_key = everyone[0]._replace(key=bytes(31) + b"\x09")
    of_another_round = Senders(round_index=4)
    of_another_round.signing["berlin"] = senders.signing["berlin"]
    earlier = Declarations("berlin", senders.signing["berlin"]).declare(of_another_round.neighbourhood)
    zero = senders.neighbourhood.sign("berlin", bytes(32), senders.signing["berlin"])
    return {
        "alone": (senders, own, "list of 1 participants where it takes 3 of its 4 senders"),
        "few": (senders, everyone[:2], "list of 2 participants where it takes 3 of its 4 senders"),
        "without us": (senders, [everyone[0], *everyone[2:]], "without this site"),
        "no sender": (senders, [*everyone[:2], *strangers.present("rom")], "sends nothing to zug in round 4"),
        "signed by another": (senders, [signed_by_another, *everyone[1:]], "berlin did not sign"),
        "key exchanged": (senders, [other_key, *everyone[1:]], "berlin did not sign"),
        "of another round": (senders, [earlier, *everyone[1:]], "berlin did not sign"),
        "unusable key": (senders, [zero, *everyone[1:]], "not a usable X25519 key"),
    }


@pytest.mark.parametrize("case", refusals())
def test_a_list_is_not_answered_that(case: str) -> None:
    senders, participants, message = refusals()[case]
    with pytest.raises(WireError, match=message):
        senders.masked("graz", participants)
    senders.masked("graz", senders.present())  # and it has not been taken for the one that is


def test_without_a_declaration_nothing_is_answered() -> None:
    senders = Senders()
    participants = senders.present()
    senders.declarations["graz"].forget(4)
    with pytest.raises(WireError, match="has not declared itself present to zug in round 4"):
        senders.masked("graz", participants)


def test_while_a_key_is_rotated_both_are_believed() -> None:
    senders = Senders()
    new = Ed25519PrivateKey.generate()
    old = senders.neighbourhood
    keys = {**old.senders, "graz": (*old.senders["graz"], new.public_key().public_bytes_raw())}
    senders.neighbourhood = Neighbourhood(old.federation, old.receiver, old.round, keys)
    senders.declarations["graz"] = Declarations("graz", new)
    participants = senders.present()
    total = sum(senders.masked(name, participants).astype(np.uint64) for name in NAMES).astype(np.uint32)
    np.testing.assert_array_equal(total, sum(senders.plain(name) for name in NAMES))


@pytest.mark.parametrize("count", range(4, 12))
def test_a_receiver_and_one_accomplice_cannot_take_lists_apart(count: int) -> None:
    """It would ask each of the others for a list of that one and the accomplice, whose body it knows."""
    names = [f"site-{number:02}" for number in range(count)]
    senders = Senders(names, parameters=10)
    accomplice, *others = senders.present()
    for other in others:
        with pytest.raises(WireError, match=f"2 participants where it takes {fewest_senders(count)} of its {count}"):
            senders.masked(other.name, [accomplice, other])
    assert 2 * fewest_senders(count) > count  # no two lists without a sender in common
