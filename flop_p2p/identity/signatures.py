"""Members' consent to a revision of their federation: Ed25519 over a fixed text and the revision's id."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flop_p2p.config import FederationSettings, Signature

CONTEXT = b"flop-p2p federation revision"
KEPT = 2  # signatures of one member: with the key before a rotation and with the key after


def sign(federation: FederationSettings, name: str, key: Ed25519PrivateKey) -> FederationSettings:
    """The same federation with the signature of member ``name`` added.

    Of one member the last two signatures stay, so that a signature of an earlier draft goes at last.
    """
    own = Signature(member=name, signature=key.sign(_signed_text(federation)).hex())
    before = [each for each in federation.signatures if each.member == name and each != own]
    others = [each for each in federation.signatures if each.member != name]
    kept = [*before, own][-KEPT:]
    return federation.model_copy(update={"signatures": (*others, *kept)})


def is_signed(federation: FederationSettings, name: str, signing_key: str) -> bool:
    """Whether one of the signatures of member ``name`` holds with a public key (hexadecimal)."""
    return any(
        _holds(signing_key, each.signature, _signed_text(federation))
        for each in federation.signatures
        if each.member == name
    )


def missing_signatures(federation: FederationSettings, before: FederationSettings | None = None) -> list[str]:
    """Who has still to sign a revision: its members, and those whose signing key it changes with the earlier key too.

    Args:
        before: the revision before, from which the earlier keys are known.
    """
    missing = []
    earlier = {} if before is None else {member.name: member.signing_key for member in before.members}
    for name in federation.names:
        key = federation.member(name).signing_key
        if not is_signed(federation, name, key):
            missing.append(name)
        if earlier.get(name, key) != key and not is_signed(federation, name, earlier[name]):
            missing.append(f"{name} with its earlier key")
    return missing


def _signed_text(federation: FederationSettings) -> bytes:
    return CONTEXT + bytes.fromhex(federation.id)


def _holds(signing_key: str, signature: str, text: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signing_key)).verify(bytes.fromhex(signature), text)
    except (InvalidSignature, ValueError):
        return False
    return True
