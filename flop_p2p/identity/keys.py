"""The keys of a site: one pair for the encrypted control channel (CURVE), one to sign revisions (Ed25519).

They lie in a folder of three files: `curve.secret` and `signing.secret`, which only their owner may read, and
`public.toml`, which is handed to the other sites. Secrets are never printed, logged or put in a message.
"""

import base64
import hashlib
import os
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w
import zmq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from flop_p2p.config import Settings, read_toml, validate
from flop_p2p.config.federation import CurveKey, Fingerprint, SiteName
from flop_p2p.errors import ConfigError, IdentityError

CURVE_SECRET = "curve.secret"
SIGNING_SECRET = "signing.secret"
PUBLIC = "public.toml"
PRIVATE_MODE = 0o600
OTHERS = stat.S_IRWXG | stat.S_IRWXO
LONGEST_SECRET = 200  # bytes that are read of a secret file


class PublicKeys(Settings):
    """What others may know of a site's keys: the content of `public.toml`."""

    name: SiteName = Field(description="name of the site in the federation")
    curve_key: CurveKey = Field(description="public key for the encrypted control channel, Z85")
    signing_key: Fingerprint = Field(description="Ed25519 public key that signs revisions, hexadecimal")

    @property
    def fingerprint(self) -> str:
        """Both keys and the name in one line that two people can compare over the telephone."""
        return grouped(hashlib.sha256("\n".join((self.name, self.curve_key, self.signing_key)).encode()).digest())


@dataclass(frozen=True)
class Keys:
    """A site's own keys. ``curve_public`` and ``curve_secret`` are in Z85, 40 bytes each."""

    name: str
    curve_public: bytes
    curve_secret: bytes = field(repr=False)
    signing: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> PublicKeys:
        """The public half."""
        signing_key = self.signing.public_key().public_bytes_raw().hex()
        return PublicKeys(name=self.name, curve_key=self.curve_public.decode(), signing_key=signing_key)


def generate(folder: Path, name: str) -> PublicKeys:
    """Make new keys in ``folder``, which is created for its owner only, and return the public half.

    Raises:
        ConfigError: ``name`` cannot be a site's name.
        IdentityError: there is a file of keys already, or the folder cannot be written.
    """
    curve_public, curve_secret = zmq.curve_keypair()
    signing = Ed25519PrivateKey.generate()
    values = {
        "name": name,
        "curve_key": curve_public.decode(),
        "signing_key": signing.public_key().public_bytes_raw().hex(),
    }
    public = validate(PublicKeys, values, "keys")
    present = [file for file in (CURVE_SECRET, SIGNING_SECRET, PUBLIC) if os.path.lexists(folder / file)]
    if present:
        raise IdentityError(f"{folder / present[0]}: exists already, and keys are never overwritten; give a new folder")
    _write(
        folder,
        {
            CURVE_SECRET: (curve_secret.decode() + "\n", PRIVATE_MODE),
            SIGNING_SECRET: (signing.private_bytes_raw().hex() + "\n", PRIVATE_MODE),
            PUBLIC: (tomli_w.dumps(public.model_dump()), 0o644),
        },
    )
    return public


def load_keys(folder: Path) -> Keys:
    """The keys that `generate` made in ``folder``.

    Raises:
        IdentityError: a file is absent, readable by others than its owner, or no key, others may write the folder, or
            `public.toml` belongs to other secrets. The text of a secret is in no message.
    """
    _check_folder(folder)
    public = load_public(folder / PUBLIC)
    curve_secret = _read_secret(folder / CURVE_SECRET)
    try:
        curve_public = zmq.curve_public(curve_secret)
    except (zmq.ZMQError, ValueError):
        raise IdentityError(f"{folder / CURVE_SECRET}: holds no CURVE key; restore it from a backup") from None
    try:
        signing = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(_read_secret(folder / SIGNING_SECRET).decode()))
    except ValueError:
        raise IdentityError(f"{folder / SIGNING_SECRET}: holds no Ed25519 key; restore it from a backup") from None
    keys = Keys(public.name, curve_public, curve_secret, signing)
    if keys.public != public:
        raise IdentityError(f"{folder / PUBLIC}: does not belong to the secret keys beside it; restore all three files")
    return keys


def load_public(path: Path) -> PublicKeys:
    """Read a `public.toml`.

    Raises:
        IdentityError: it cannot be read or holds no keys.
    """
    try:
        return validate(PublicKeys, read_toml(path), str(path))
    except ConfigError as error:
        raise IdentityError(str(error)) from error


def grouped(digest: bytes) -> str:
    """A hash in eight groups of four letters and digits, to be read aloud: its first 160 bits in base 32.

    Letters are lower case; the alphabet of RFC 4648 has no 0, 1, 8 and 9, which sound or look like others.
    """
    text = base64.b32encode(digest[:20]).decode().lower()
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


def _write(folder: Path, files: Mapping[str, tuple[str, int]]) -> None:
    """Create files with their modes from the first instant; on failure none of them stays."""
    written: list[Path] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, (text, mode) in files.items():
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(folder / name)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise IdentityError(f"{error.filename or folder}: keys cannot be written ({error.strerror})") from error


def _check_folder(folder: Path) -> None:
    """Who may write the folder can put other keys into it."""
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise IdentityError(f"{folder}: cannot read this folder of keys ({error.strerror})") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise IdentityError(
            f"{folder}: others than its owner may change these keys (mode {mode:04o}); "
            f"run: chmod go-w {shlex.quote(str(folder))}"
        )


def _read_secret(path: Path) -> bytes:
    """The text of a secret file, checked for its mode on the very file that is read."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & OTHERS:
                raise IdentityError(
                    f"{path}: others than its owner may use this secret key (mode {mode:04o}); "
                    f"run: chmod 600 {shlex.quote(str(path))}"
                )
            return file.read(LONGEST_SECRET).strip()
    except OSError as error:
        raise IdentityError(f"{path}: cannot read this secret key ({error.strerror})") from error
