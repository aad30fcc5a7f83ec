"""Masked gossip: masks that hide each body from its receiver, and cancel in the sum of all that it receives.

For a receiver r and a round, every sender j that takes part adds to its weighted body a mask shared with each other
sender k, with opposite signs, modulo 2^32 (Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving
Machine Learning", CCS 2017, section 4, without the recovery of dropped users; applied to each neighbourhood, as in
CESAR, Biswas et al., arXiv 2406.07373):

    ``y_j = W_rj u_j + sum_{k > j} mask_jk - sum_{k < j} mask_jk``      so that      ``sum_j y_j = sum_j W_rj u_j``

First every sender declares itself present to r: it makes a fresh X25519 key for this receiver and round, and signs it
with its member key. r passes the list of those present to all of them. Each answers for one list only, and the mask of
a pair comes from a key that is bound to the whole list (HKDF over the X25519 secret of the two): with another list, or
after a restart, every mask is another. A mask is never removed: if one who is on the list does not send, the round is
skipped.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flop_p2p.errors import WireError
from flop_p2p.topology import fewest_senders
from flop_p2p.wire.encodings import SPAN, Masked
from flop_p2p.wire.participants import Participant
from flop_p2p.wire.sealing import KEY_BYTES, joined

PRESENT = b"flop-p2p masked gossip, version 1: present"
LIST = b"flop-p2p masked gossip, version 1: list"
PAIR = b"flop-p2p masked gossip, version 1: mask of a pair"


@dataclass(frozen=True)
class Neighbourhood:
    """The senders of one receiver in one round.

    federation: id of the revision that holds in the round.
    senders: their Ed25519 public keys, 32 raw bytes, by name; more than one while a key is rotated.
    """

    federation: str
    receiver: str
    round: int
    senders: Mapping[str, tuple[bytes, ...]]

    def context(self) -> bytes:
        """What belongs to this receiver and round alone."""
        return joined(self.federation.encode(), self.receiver.encode(), self.round.to_bytes(8, "big", signed=True))

    def check(self, participant: Participant) -> None:
        """Refuse who is no sender of this neighbourhood, or did not sign its key for it.

        Raises:
            WireError: it is or did not.
        """
        if participant.name not in self.senders:
            raise WireError(f"{participant.name!a:.70} sends nothing to {self.receiver} in round {self.round + 1}")
        declaration = self._declaration(participant.name, participant.key)
        for key in self.senders[participant.name]:
            with suppress(InvalidSignature):
                Ed25519PublicKey.from_public_bytes(key).verify(participant.signature, declaration)
                return
        raise WireError(f"{participant.name} did not sign that it is present in round {self.round + 1}")

    def sign(self, name: str, key: bytes, signing: Ed25519PrivateKey) -> Participant:
        """The declaration of ``name`` that it is present with this X25519 public key."""
        return Participant(name, key, signing.sign(self._declaration(name, key)))

    def digest(self, participants: Sequence[Participant]) -> bytes:
        """SHA-256 of who takes part with which key, 32 bytes."""
        parts = [part for each in participants for part in (each.name.encode(), each.key)]
        return hashlib.sha256(LIST + self.context() + joined(*parts)).digest()

    def _declaration(self, name: str, key: bytes) -> bytes:
        return PRESENT + self.context() + joined(name.encode(), key)


class Pad(NamedTuple):
    """The mask that a site shares with another one: the stream of a key that is used once, added or subtracted."""

    key: bytes
    added: bool


class Declarations:
    """What one site has declared to each receiver in the latest rounds, and the one list that it answers for each.

    Args:
        name: of the site.
        signing: its member key.
    """

    def __init__(self, name: str, signing: Ed25519PrivateKey) -> None:
        self._name = name
        self._signing = signing
        self._private: dict[tuple[str, int], X25519PrivateKey] = {}
        self._answered: dict[tuple[str, int], bytes] = {}

    def declare(self, neighbourhood: Neighbourhood) -> Participant:
        """That the site is present; the same as often as it is asked for."""
        place = (neighbourhood.receiver, neighbourhood.round)
        private = self._private.setdefault(place, X25519PrivateKey.generate())
        return neighbourhood.sign(self._name, private.public_key().public_bytes_raw(), self._signing)

    def answer(self, neighbourhood: Neighbourhood, participants: Sequence[Participant]) -> tuple[bytes, list[Pad]]:
        """The hash of the list, which is the one that this site answers from now on, and the masks for it.

        Raises:
            WireError: the site answers another list of this receiver and round, has not declared itself present, is
                not on the list with the key that it declared, or is with too few others; or somebody on it is no
                sender or did not sign.
        """
        receiver, round_index = place = (neighbourhood.receiver, neighbourhood.round)
        digest = neighbourhood.digest(participants)
        if self._answered.get(place, digest) != digest:
            raise WireError(f"{receiver} asks for a second list of participants in round {round_index + 1}")
        private = self._private.get(place)
        if private is None:
            raise WireError(f"this site has not declared itself present to {receiver} in round {round_index + 1}")
        mine = private.public_key().public_bytes_raw()
        if [each.key for each in participants if each.name == self._name] != [mine]:
            raise WireError(f"{receiver} sent a list of participants without this site as it declared itself")
        if len(participants) < (fewest := fewest_senders(len(neighbourhood.senders))):
            raise WireError(
                f"{receiver} sent a list of {len(participants)} participants where it takes {fewest} of its "
                f"{len(neighbourhood.senders)} senders: who knows the others' bodies would learn this one"
            )
        for each in participants:
            neighbourhood.check(each)
        pads = [self._pad(private, each, digest) for each in participants if each.name != self._name]
        self._answered[place] = digest
        return digest, pads

    def forget(self, round_index: int) -> None:
        """Drop the keys of rounds before this one: they cannot be answered any more."""
        for table in (self._private, self._answered):
            for place in [place for place in table if place[1] < round_index]:
                del table[place]

    def _pad(self, private: X25519PrivateKey, other: Participant, digest: bytes) -> Pad:
        try:
            secret = private.exchange(X25519PublicKey.from_public_bytes(other.key))
        except ValueError:  # a point of small order, whose shared secret is zero
            raise WireError(f"the key of {other.name} is not a usable X25519 key") from None
        pair = joined(*sorted((self._name.encode(), other.name.encode())))
        key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=PAIR + digest + pair).derive(secret)
        return Pad(key, added=self._name < other.name)


def mask(integers: Masked, pads: Iterable[Pad]) -> None:
    """Add the masks to ``integers``, ``[parameters]``, in place, modulo 2^32.

    A mask is the key stream of AES-256 in counter mode, from counter zero: its key is used for nothing else.
    """
    zeros, stream = bytes(4 * SPAN), bytearray(4 * SPAN)
    mask_block = np.frombuffer(stream, "<u4")
    ciphers = [(Cipher(AES(pad.key), CTR(bytes(16))).encryptor(), pad.added) for pad in pads]
    for start in range(0, len(integers), SPAN):
        block = integers[start : start + SPAN]
        for cipher, added in ciphers:
            cipher.update_into(memoryview(zeros)[: block.nbytes], stream)
            (np.add if added else np.subtract)(block, mask_block[: len(block)], out=block)
