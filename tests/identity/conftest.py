"""Members with real keys, kept in memory, and federations of them."""

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import zmq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flop_p2p.config import FederationSettings, Member, SampleSettings
from flop_p2p.identity.signatures import sign

NAMES = ("east", "north", "süd", "west")
SAMPLES = SampleSettings(task="multiclass", class_names=("a", "b", "c"), shape=(1, 8, 8))


@cache
def curve_key(name: str) -> str:
    return zmq.curve_keypair()[0].decode()


@pytest.fixture(scope="session")
def signing_key() -> Callable[[str], Ed25519PrivateKey]:
    """The signing key of a name, the same at each call."""
    return lambda name: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


@pytest.fixture(scope="session")
def member(signing_key: Callable[[str], Ed25519PrivateKey]) -> Callable[..., Member]:
    """A factory of members; ``keys`` is the name whose keys it has, its own by default."""

    def make(name: str, keys: str | None = None, **values: Any) -> Member:
        own = keys or name
        where = f"{name.encode('idna').decode()}.example"
        return Member(
            **{
                "name": name,
                "control": f"tcp://{where}:5700",
                "bulk": f"tcp://{where}:5701",
                "curve_key": curve_key(own),
                "signing_key": signing_key(own).public_key().public_bytes_raw().hex(),
                **values,
            }
        )

    return make


@pytest.fixture(scope="session")
def federation(member: Callable[..., Member]) -> Callable[..., FederationSettings]:
    """A factory of federations, of four sites by default."""

    def make(**values: Any) -> FederationSettings:
        members = tuple(member(name) for name in NAMES)
        return FederationSettings(**{"name": "retina", "samples": SAMPLES, "members": members, **values})

    return make


@pytest.fixture(scope="session")
def sign_all(signing_key: Callable[[str], Ed25519PrivateKey]) -> Callable[..., FederationSettings]:
    """Sign with the keys of all members, or with those of ``keys`` (pairs of member and whose key)."""

    def signed(revision: FederationSettings, keys: Any = None) -> FederationSettings:
        for name, key in keys or [(name, name) for name in revision.names]:
            revision = sign(revision, name, signing_key(key))
        return revision

    return signed
