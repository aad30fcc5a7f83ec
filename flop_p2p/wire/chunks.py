"""A body cut into chunks, and put together again from chunks that are checked before they are believed."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.errors import WireError
from flop_p2p.wire.encodings import Compressed, Masked, agreed, decode, encoded_bytes
from flop_p2p.wire.frames import CHUNK_BYTES, Descriptor

BYTES_PER_PARAMETER = 4
Vector = NDArray[np.float32]
WHOLE = {"float32": "<f4", "masked": "<u4"}  # encodings of which the bytes are the numbers
CHECK_BLOCK = 1 << 16  # numbers whose finiteness is checked at a time: the mask of a block stays in the cache


def chunk_count(size: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """How many chunks ``size`` bytes make."""
    return -(-size // chunk_bytes)


def chunk_views(body: memoryview, chunk_bytes: int = CHUNK_BYTES) -> list[memoryview]:
    """Views of the bytes of ``body`` (contiguous, little-endian), each of ``chunk_bytes`` but the last."""
    data = body.cast("B")
    return [data[start : start + chunk_bytes] for start in range(0, data.nbytes, chunk_bytes)]


class Assembly:
    """A body on its way in. Chunks are opened straight into it, in order; ``body`` hands it out once it is proven.

    Args:
        descriptor: what the sender says about the body.
        schema_hash: SHA-256 of the schema that both sides agreed on.
        parameters: numbers in a body of that schema.
        gossip: which encodings were agreed on.
        masked: whether bodies are masked.
        memory: a body of ``[parameters]`` that nobody needs any more, to be overwritten; None allocates a new one.

    Raises:
        WireError: the descriptor does not fit the schema or the settings; nothing was allocated.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        *,
        schema_hash: bytes,
        parameters: int,
        gossip: GossipSettings,
        masked: bool = False,
        memory: Vector | Masked | None = None,
    ) -> None:
        if descriptor.encoding not in (allowed := agreed(gossip, masked)):
            raise WireError(f"body in {descriptor.encoding}, but the federation agreed on {' or '.join(allowed)}")
        size = encoded_bytes(descriptor.encoding, parameters, gossip.top_k)
        if descriptor.schema_hash != schema_hash:
            raise WireError(f"body of schema {descriptor.schema_hash.hex()[:16]}, ours is {schema_hash.hex()[:16]}")
        if descriptor.size != size:
            raise WireError(
                f"body of {descriptor.size} bytes, but {parameters} parameters take {size} in {descriptor.encoding}"
            )
        if descriptor.chunks != chunk_count(size, descriptor.chunk_bytes):
            raise WireError(f"{descriptor.chunks} chunks of {descriptor.chunk_bytes} bytes do not make {size} bytes")
        self.descriptor = descriptor
        self._parameters, self._top_k = parameters, gossip.top_k
        if descriptor.encoding in WHOLE:
            number = WHOLE[descriptor.encoding]
            self._data = np.empty(parameters, number) if memory is None else memory.view(number)
        else:
            self._data = np.empty(size, np.uint8)
        self._view = self._data.data.cast("B")  # cut as chunks come: a sender might announce a million
        self._sha256 = hashlib.sha256()
        self._added = 0
        self._objection = ""

    @property
    def complete(self) -> bool:
        """All chunks were added."""
        return self._added == self.descriptor.chunks

    def target(self, index: int) -> memoryview:
        """Where chunk ``index`` (from 1) is to be written.

        Raises:
            WireError: it is not the chunk that comes next.
        """
        if self.complete or index != self._added + 1:
            raise WireError(
                f"chunk {index} after {self._added} of {self.descriptor.chunks}: missing, double or too many"
            )
        start = (index - 1) * self.descriptor.chunk_bytes
        return self._view[start : start + self.descriptor.chunk_bytes]

    def add(self, index: int) -> None:
        """Chunk ``index`` now lies in its target, opened and authentic; it is hashed and looked through while it is in
        the cache. It may be called in another thread than the rest, one call at a time.

        Raises:
            WireError: it is not the chunk that comes next.
        """
        chunk = self.target(index)
        self._sha256.update(chunk)
        if self.descriptor.encoding == "float32":
            start = (index - 1) * self.descriptor.chunk_bytes // BYTES_PER_PARAMETER
            self._objection = self._objection or self._not_finite(start, start + chunk.nbytes // BYTES_PER_PARAMETER)
        self._added = index

    def body(self, base: Vector | None = None) -> Vector | Masked:
        """The body, ``[parameters]``: float32, or uint32 if it is masked. Those that come whole are not copied (on
        little-endian machines).

        Args:
            base: the body that this one changes.

        Raises:
            WireError: chunks are missing, the SHA-256 differs, a number is not finite, or the bytes are not what the
                encoding writes.
        """
        if not self.complete:
            raise WireError(
                f"body of round {self.descriptor.round}: {self._added} of {self.descriptor.chunks} chunks came"
            )
        if self._sha256.digest() != self.descriptor.sha256:
            raise WireError(f"body of round {self.descriptor.round}: its SHA-256 is not the one announced")
        if self._objection:
            raise WireError(f"body of round {self.descriptor.round}: {self._objection}")
        match self.descriptor.encoding:
            case "float32":
                return self._data.astype(np.float32, copy=False)
            case "masked":
                return self._data.astype(np.uint32, copy=False)
            case encoding:
                return self._decode(encoding, base)

    def _decode(self, encoding: Compressed, base: Vector | None) -> Vector:
        try:
            return decode(encoding, self._data, self._parameters, self._top_k, base)
        except WireError as error:
            raise WireError(f"body of round {self.descriptor.round}: {error}") from None

    def _not_finite(self, start: int, end: int) -> str:
        """The first number from ``start`` to ``end`` that is not finite, in words; empty if all are."""
        for begin in range(start, end, CHECK_BLOCK):
            finite = np.isfinite(self._data[begin : min(begin + CHECK_BLOCK, end)])
            if not finite.all():
                position = begin + int(finite.argmin())
                return f"number {position} is {self._data[position]}, not finite"
        return ""
