"""Frames of the bulk channel: a header in the clear, and the description of a body that its chunks follow."""

from pydantic import Field, model_validator

from flop_p2p.wire.codec import build, encode, read_map
from flop_p2p.wire.encodings import Encoding
from flop_p2p.wire.messages import WIRE_VERSION, Digest, Message, Round, Session

CHUNK_BYTES = 4 << 20
MAX_CHUNK_BYTES = 4 << 20
MAX_CHUNKS = 1 << 20
TAG_BYTES = 16
MAX_FRAME_BYTES = MAX_CHUNK_BYTES + TAG_BYTES
MAX_HEADER_BYTES = 128
MAX_DESCRIPTOR_BYTES = 320

# Frames that one key may seal. GCM's margin shrinks with the square of the blocks under one key: 2^18 frames of 2^18
# blocks keep an attacker's advantage at 2^-57, where TLS 1.3 keeps it (RFC 8446, section 5.5).
MAX_FRAMES = 1 << 18


class FrameHeader(Message):
    """What travels in the clear with every frame, as associated data of its seal.

    version: of the wire.
    session: id of the session whose key seals the frame.
    counter: strictly increasing within a session and direction; the nonce.
    round: of the body that the frame belongs to.
    index: 0 for the descriptor, 1 to ``count`` for the chunks.
    count: chunks of the body.
    """

    version: int = Field(WIRE_VERSION, ge=WIRE_VERSION, le=WIRE_VERSION)
    session: Session
    counter: int = Field(ge=0, lt=MAX_FRAMES)
    round: Round
    index: int = Field(ge=0, le=MAX_CHUNKS)
    count: int = Field(ge=1, le=MAX_CHUNKS)

    @model_validator(mode="after")
    def _index_within_count(self) -> "FrameHeader":
        if self.index > self.count:
            raise ValueError(f"chunk {self.index} of {self.count}")
        return self

    def encode(self) -> bytes:
        """A msgpack map of the fields."""
        return encode(self)

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> "FrameHeader":
        """The header in ``data``: well-formed, but not yet authenticated.

        Raises:
            WireError: ``data`` is anything but a header.
        """
        return build(cls, read_map(data, MAX_HEADER_BYTES, "frame header"), "frame header")


class Descriptor(Message):
    """The first frame of a body, sealed like its chunks.

    round: that the body was published in.
    schema_hash: of the tensors that the body consists of.
    encoding: how its numbers are written.
    base: round of the body that ``top-k`` changes, the latest that came before over the same connection; -1 for the
        other encodings, which need none.
    size: of what is sent, in bytes.
    chunk_bytes: size of every chunk but the last, which may be shorter.
    chunks: how many follow.
    sha256: of what is sent.
    participants: hash of the list that a masked body was masked for; empty for the other encodings.
    chain: hash of the sender's egress log line about this body.
    """

    round: Round
    schema_hash: Digest
    encoding: Encoding = "float32"
    base: Round = -1
    size: int = Field(ge=1, le=MAX_CHUNKS * MAX_CHUNK_BYTES)
    chunk_bytes: int = Field(ge=4, le=MAX_CHUNK_BYTES, multiple_of=4)
    chunks: int = Field(ge=1, le=MAX_CHUNKS)
    sha256: Digest
    participants: bytes = Field(b"", max_length=32)
    chain: Digest

    @model_validator(mode="after")
    def _encoding_is_complete(self) -> "Descriptor":
        if (self.encoding == "top-k") != (self.base >= 0):
            raise ValueError(f"a body in {self.encoding} that changes one of round {self.base}")
        if (self.encoding == "masked") != (len(self.participants) == 32):
            raise ValueError(f"a body in {self.encoding} with {len(self.participants)} bytes about its participants")
        return self

    def encode(self) -> bytes:
        """A msgpack map of the fields, at most `MAX_DESCRIPTOR_BYTES` long."""
        return encode(self)

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> "Descriptor":
        """The descriptor in ``data``, a plaintext that was opened. Whether it fits the schema is `Assembly`'s to say.

        Raises:
            WireError: ``data`` is anything but a descriptor.
        """
        return build(cls, read_map(data, MAX_DESCRIPTOR_BYTES, "descriptor"), "descriptor")
