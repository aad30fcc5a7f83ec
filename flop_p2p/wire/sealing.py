"""Sealing: every frame encrypted and authenticated for exactly one receiver, into buffers that are used again.

AES-256-GCM (NIST SP 800-38D) with one key a direction, from HKDF-SHA256 (RFC 5869) over an X25519 exchange (RFC 7748)
of fresh keys, which the two sides sent each other on the authenticated control channel. The frame's counter is the
nonce, so no nonce comes twice under a key; the header as it travelled is associated data.
"""

from abc import ABC, abstractmethod

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flop_p2p.errors import WireError
from flop_p2p.wire.frames import MAX_CHUNK_BYTES, MAX_DESCRIPTOR_BYTES, MAX_FRAMES, TAG_BYTES, Descriptor, FrameHeader

KEY_BYTES = 32
NONCE_BYTES = 12
PURPOSE = b"flop-p2p bulk channel, version 1"


class FrameSealer(ABC):
    """Numbers the frames of one direction of a session and writes them into the caller's buffer. One thread at a time.

    Attributes:
        session: id of the session.
        overhead: bytes that a frame is longer than its plaintext.
        frames_left: frames until the session must be renewed.
    """

    overhead: int

    def __init__(self, session: bytes) -> None:
        self.session = session
        self.frames_left = MAX_FRAMES

    def seal(
        self, round_index: int, index: int, count: int, plaintext: memoryview, buffer: memoryview
    ) -> tuple[bytes, memoryview]:
        """Seal one frame under the next counter. Sealing the same plaintext again takes another one.

        Args:
            round_index, index, count: see `FrameHeader`.
            plaintext: contiguous bytes, at most `MAX_CHUNK_BYTES`; not copied.
            buffer: writable, at least ``overhead`` bytes longer than the plaintext, and apart from it.

        Returns:
            the header as it must travel, and the part of ``buffer`` that was written.

        Raises:
            WireError: the plaintext or the buffer has a wrong size, or the session is used up.
        """
        size = plaintext.nbytes + self.overhead
        if plaintext.nbytes > MAX_CHUNK_BYTES or size > buffer.nbytes:
            raise WireError(f"{plaintext.nbytes} bytes fit neither a frame nor a buffer of {buffer.nbytes}")
        if not self.frames_left:
            raise WireError(f"the session has sealed {MAX_FRAMES} frames; the two neighbours must renew their keys")
        counter = MAX_FRAMES - self.frames_left
        header = FrameHeader(
            session=self.session, counter=counter, round=round_index, index=index, count=count
        ).encode()
        self.frames_left -= 1
        sealed = buffer[:size]
        self._write(counter, header, plaintext, sealed)
        return header, sealed

    @abstractmethod
    def _write(self, counter: int, header: bytes, plaintext: memoryview, sealed: memoryview, /) -> None: ...


class FrameOpener(ABC):
    """Checks the frames of one direction of a session and writes their plaintext into the caller's buffer.

    Attributes:
        session: id of the session.
        overhead: bytes that a frame is longer than its plaintext.
    """

    overhead: int

    def __init__(self, session: bytes) -> None:
        self.session = session
        self._last = -1

    def open(self, header: bytes, sealed: memoryview, target: memoryview) -> FrameHeader:
        """Open one frame into ``target``. A frame that is refused changes nothing but the content of ``target``.

        Args:
            header, sealed: as they travelled.
            target: writable bytes, exactly ``overhead`` shorter than ``sealed``.

        Returns:
            the header, now authenticated.

        Raises:
            WireError: the frame is malformed, altered, foreign, or not newer than the last one that was opened.
        """
        decoded = FrameHeader.decode(header)
        if decoded.session != self.session:
            raise WireError(f"frame of session {decoded.session.hex()}, this one is {self.session.hex()}")
        if decoded.counter <= self._last:
            raise WireError(f"frame {decoded.counter} after frame {self._last}: replayed or out of order")
        if sealed.nbytes != target.nbytes + self.overhead:
            raise WireError(f"frame of {sealed.nbytes} bytes where {target.nbytes + self.overhead} are expected")
        self._read(decoded.counter, header, sealed, target)
        self._last = decoded.counter
        return decoded

    def open_descriptor(self, header: bytes, sealed: memoryview) -> Descriptor:
        """Open the first frame of a body.

        Raises:
            WireError: as `open`; or it holds no descriptor, or one that its header contradicts.
        """
        size = sealed.nbytes - self.overhead
        if not 0 < size <= MAX_DESCRIPTOR_BYTES:
            raise WireError(f"frame of {sealed.nbytes} bytes where a descriptor is expected")
        target = bytearray(size)
        decoded = self.open(header, sealed, memoryview(target))
        descriptor = Descriptor.decode(target)
        if (decoded.index, decoded.round, decoded.count) != (0, descriptor.round, descriptor.chunks):
            raise WireError(f"frame {decoded.counter} says one thing about a body, the descriptor in it another")
        return descriptor

    @abstractmethod
    def _read(self, counter: int, header: bytes, sealed: memoryview, target: memoryview, /) -> None: ...


class Sealer(FrameSealer):
    """Encrypts for one receiver, with the key of this direction."""

    overhead = TAG_BYTES

    def __init__(self, session: bytes, key: bytes) -> None:
        super().__init__(session)
        self._cipher = AESGCM(key)

    def _write(self, counter: int, header: bytes, plaintext: memoryview, sealed: memoryview, /) -> None:
        self._cipher.encrypt_into(_nonce(counter), plaintext, header, sealed)


class Opener(FrameOpener):
    """Decrypts what one sender sealed, with the key of that direction."""

    overhead = TAG_BYTES

    def __init__(self, session: bytes, key: bytes) -> None:
        super().__init__(session)
        self._cipher = AESGCM(key)

    def _read(self, counter: int, header: bytes, sealed: memoryview, target: memoryview, /) -> None:
        try:
            self._cipher.decrypt_into(_nonce(counter), sealed, header, target)
        except InvalidTag:
            raise WireError(f"frame {counter} is altered or was sealed with another key") from None


class ClearSealer(FrameSealer):
    """Frames for a channel that CURVE encrypts and authenticates already."""

    overhead = 0

    def _write(self, _counter: int, _header: bytes, plaintext: memoryview, sealed: memoryview, /) -> None:
        sealed[:] = plaintext


class ClearOpener(FrameOpener):
    """The other end of a `ClearSealer`: the same checks of the header."""

    overhead = 0

    def _read(self, _counter: int, _header: bytes, sealed: memoryview, target: memoryview, /) -> None:
        target[:] = sealed


class KeyExchange:
    """A fresh X25519 key pair, good for one session.

    Attributes:
        public: the public key, 32 raw bytes, for the greeting.
    """

    def __init__(self) -> None:
        self._private: X25519PrivateKey | None = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def derive(
        self, peer_public: bytes, *, own: str, peer: str, federation: str, session: bytes
    ) -> tuple[Sealer, Opener]:
        """The sealer towards ``peer`` and the opener of its frames. The private key is dropped, whatever comes of it.

        Args:
            peer_public: X25519 public key of the other side, 32 raw bytes.
            own, peer: names of the two members.
            federation: id of the federation.
            session: id of the session, 8 bytes.

        Raises:
            WireError: the public key is not usable or our own, or this exchange was used before.
        """
        private, self._private = self._private, None
        if private is None:
            raise WireError("a key exchange makes the keys of one session; the next one needs a fresh one")
        if peer_public == self.public or own == peer:
            raise WireError(f"{peer} sent our own public key or name back; its greeting is a reflection of ours")
        try:
            secret = private.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError:  # wrong length, or a point of small order, whose shared secret is zero
            raise WireError(f"the public key of {peer} is not a usable X25519 key") from None

        def key(sender: str, receiver: str, sender_public: bytes, receiver_public: bytes) -> bytes:
            names = joined(*(text.encode() for text in (federation, sender, receiver)))
            info = PURPOSE + session + sender_public + receiver_public + names
            return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)

        return (
            Sealer(session, key(own, peer, self.public, peer_public)),
            Opener(session, key(peer, own, peer_public, self.public)),
        )


def joined(*parts: bytes) -> bytes:
    """The parts one after the other, each behind its length in four bytes: other parts give other bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(NONCE_BYTES, "big")
