import gc
import hashlib
import hmac
import random
import tracemalloc

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from flop_p2p.errors import WireError
from flop_p2p.wire import (
    MAX_CHUNK_BYTES,
    MAX_DESCRIPTOR_BYTES,
    MAX_FRAME_BYTES,
    MAX_FRAMES,
    TAG_BYTES,
    ClearOpener,
    ClearSealer,
    Descriptor,
    FrameHeader,
    FrameOpener,
    FrameSealer,
    KeyExchange,
    Opener,
    Sealer,
)

SESSION = b"session1"
TEXT = bytes(range(200))
DESCRIPTOR = Descriptor(
    round=3, schema_hash=bytes(32), size=4000, chunk_bytes=1000, chunks=4, sha256=bytes(32), chain=bytes(32)
)
# the header and the sealed bytes of b"body" between the private keys 0101... and 0202...
KNOWN_HEADER = (
    "86a776657273696f6e01a773657373696f6ec40873657373696f6e31a7636f756e74657200a5726f"
    "756e6403a5696e64657801a5636f756e7404"
)
KNOWN_SEALED = "7143e8e5d678beb72382d1ea85dab4665cefd209"
Ends = tuple[Sealer, Opener]  # towards the other side, and from it
Frame = tuple[bytes, bytes]


def connect(
    names: tuple[str, str] = ("north", "south"), federation: str = "f1", session: bytes = SESSION
) -> list[Ends]:
    """Both ends of a session between sites of these names."""
    exchanges = KeyExchange(), KeyExchange()
    return [
        exchanges[own].derive(
            exchanges[1 - own].public, own=names[own], peer=names[1 - own], federation=federation, session=session
        )
        for own in (0, 1)
    ]


def one_way() -> tuple[Sealer, Opener]:
    (sealer, _), (_, opener) = connect()
    return sealer, opener


def seal(sealer: FrameSealer, plaintext: bytes = TEXT, index: int = 1, count: int = 4, round_index: int = 3) -> Frame:
    """Header and sealed bytes, copied out of the buffer."""
    buffer = memoryview(bytearray(len(plaintext) + TAG_BYTES))
    header, sealed = sealer.seal(round_index, index, count, memoryview(plaintext), buffer)
    return header, bytes(sealed)


def open_frame(opener: FrameOpener, frame: Frame) -> bytes:
    """The plaintext, opened into a target of the size that fits."""
    target = bytearray(max(0, len(frame[1]) - opener.overhead))
    opener.open(frame[0], memoryview(frame[1]), memoryview(target))
    return bytes(target)


def refused(opener: FrameOpener, frame: Frame, words: str = ".") -> None:
    with pytest.raises(WireError, match=words) as caught:
        open_frame(opener, frame)
    assert str(caught.value).isprintable()


def flipped(data: bytes, bit: int) -> bytes:
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_what_is_sealed_is_opened_in_both_directions(texts: list[bytes]) -> None:
    north, south = connect()
    for (sealer, _), (_, opener) in ((north, south), (south, north)):
        for index, text in enumerate(texts, 1):
            header, sealed = seal(sealer, text, index, len(texts), 7)
            target = bytearray(len(text))
            assert opener.open(header, memoryview(sealed), memoryview(target)) == FrameHeader.decode(header)
            assert target == text
            assert FrameHeader.decode(header) == FrameHeader(
                session=SESSION, counter=index - 1, round=7, index=index, count=len(texts)
            )


def test_every_flipped_bit_of_a_small_frame_is_refused() -> None:
    sealer, opener = one_way()
    header, sealed = seal(sealer)
    for bit in range(8 * len(header)):
        refused(opener, (flipped(header, bit), sealed))
    for bit in range(8 * len(sealed)):
        refused(opener, (header, flipped(sealed, bit)), "altered")
    assert open_frame(opener, (header, sealed)) == TEXT


def test_flipped_bits_of_a_large_frame_are_refused() -> None:
    sealer, opener = one_way()
    plaintext = random.Random(1).randbytes(MAX_CHUNK_BYTES)
    header, sealed = seal(sealer, plaintext)
    target, frame = memoryview(bytearray(MAX_CHUNK_BYTES)), bytearray(sealed)
    bits = [*random.Random(2).sample(range(8 * len(sealed)), 60), 0, 8 * len(sealed) - 1, 8 * MAX_CHUNK_BYTES]
    for bit in bits:
        frame[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError, match="altered"):
            opener.open(header, memoryview(frame), target)
        frame[bit // 8] ^= 1 << bit % 8
    opener.open(header, memoryview(frame), target)
    assert target == plaintext


@settings(max_examples=300)
@given(st.binary(max_size=4096), st.binary(max_size=600))
def test_no_bytes_raise_anything_but_a_wire_error(header: bytes, sealed: bytes) -> None:
    sealer, opener = one_way()
    genuine_header, genuine = seal(sealer)
    for opens in (opener, ClearOpener(SESSION)):
        refused(opens, (header, sealed))
        refused(opens, (header, genuine))
        with pytest.raises(WireError):
            opens.open_descriptor(header, memoryview(sealed))
    refused(opener, (genuine_header, sealed))
    with pytest.raises(WireError):
        opener.open_descriptor(genuine_header, memoryview(sealed))


@settings(max_examples=200)
@given(st.data())
def test_altered_frames_are_refused_and_the_genuine_one_still_opens(data: st.DataObject) -> None:
    sealer, opener = one_way()
    header, sealed = seal(sealer)
    part = data.draw(st.sampled_from(("header", "sealed")))
    genuine = header if part == "header" else sealed
    start, end = sorted(data.draw(st.tuples(*2 * [st.integers(0, len(genuine))])))
    altered = genuine[:start] + data.draw(st.binary(max_size=20)) + genuine[end:]
    if altered != genuine:
        refused(opener, (altered, sealed) if part == "header" else (header, altered))
    assert open_frame(opener, (header, sealed)) == TEXT


def test_a_target_of_another_size_is_refused() -> None:
    sealer, opener = one_way()
    header, sealed = seal(sealer)
    for size in (0, len(TEXT) - 1, len(TEXT) + 1, len(sealed)):
        with pytest.raises(WireError, match="are expected"):
            opener.open(header, memoryview(sealed), memoryview(bytearray(size)))
    refused(opener, (header, sealed[:TAG_BYTES]), "altered")
    refused(opener, (header, sealed[: TAG_BYTES - 1]), "are expected")
    assert open_frame(opener, (header, sealed)) == TEXT


def test_replayed_and_reordered_frames_are_refused_lost_ones_are_not_waited_for() -> None:
    sealer, opener = one_way()
    frames = [seal(sealer, bytes([number])) for number in range(6)]
    assert open_frame(opener, frames[0]) == b"\0"
    assert open_frame(opener, frames[3]) == b"\3"
    for number in (0, 1, 2, 3):
        refused(opener, frames[number], f"frame {number} after frame 3")
    assert open_frame(opener, frames[5]) == b"\5"
    refused(opener, frames[4], "frame 4 after frame 5")


def test_a_forged_counter_does_not_keep_the_genuine_frame_out() -> None:
    sealer, opener = one_way()
    header, sealed = seal(sealer)
    for counter in (1, MAX_FRAMES - 1):
        forged = FrameHeader.decode(header).model_copy(update={"counter": counter}).encode()
        refused(opener, (forged, sealed), "altered")
        refused(opener, (forged, bytes(len(sealed))), "altered")
    assert open_frame(opener, (header, sealed)) == TEXT


def test_the_header_is_bound_as_it_travelled_not_as_it_reads() -> None:
    sealer, opener = one_way()
    header, sealed = seal(sealer)
    fields = FrameHeader.decode(header).model_dump()
    reordered = msgpack.packb(dict(reversed(fields.items())))
    assert FrameHeader.decode(reordered) == FrameHeader.decode(header)
    refused(opener, (reordered, sealed), "altered")


def test_frames_of_anything_else_are_refused() -> None:
    (sealer, own_opener), (_, opener) = connect()
    header, sealed = seal(sealer)
    refused(own_opener, (header, sealed), "altered")  # sent back: the other direction has another key
    (other, _), (_, elsewhere) = connect(session=b"session2")
    refused(opener, seal(other), "frame of session 73657373696f6e32")
    refused(elsewhere, (header, sealed), "frame of session 73657373696f6e31")
    refused(opener, seal(connect()[0][0]), "altered")  # fresh keys under the same session id


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [
        ({"own": "north", "peer": "east"}, {"own": "south", "peer": "north"}),
        ({"own": "west", "peer": "south"}, {"own": "south", "peer": "north"}),
        ({"own": "south", "peer": "north"}, {"own": "south", "peer": "north"}),
        ({"own": "north", "peer": "south", "federation": "f2"}, {"own": "south", "peer": "north"}),
        ({"own": "ab", "peer": "c"}, {"own": "bc", "peer": "a"}),
        ({"own": "nörth", "peer": "south"}, {"own": "south", "peer": "north"}),
    ],
)
def test_keys_differ_where_names_or_federations_do(sender: dict[str, str], receiver: dict[str, str]) -> None:
    first, second = KeyExchange(), KeyExchange()
    publics = first.public, second.public
    settings_ = {"federation": "f1", "session": SESSION}
    sealer, _ = first.derive(publics[1], **settings_ | sender)  # type: ignore[arg-type]
    _, opener = second.derive(publics[0], **settings_ | receiver)  # type: ignore[arg-type]
    refused(opener, seal(sealer), "altered")


def hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256, no salt, for one block of output."""
    extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


def test_keys_are_derived_as_documented() -> None:
    private, exchange = X25519PrivateKey.generate(), KeyExchange()
    own = private.public_key().public_bytes_raw()
    sealer, opener = exchange.derive(own, own="nörth", peer="south", federation="f1", session=SESSION)
    secret = private.exchange(X25519PublicKey.from_public_bytes(exchange.public))
    start = b"flop-p2p bulk channel, version 1" + SESSION

    def names(*texts: bytes) -> bytes:
        return b"".join(len(text).to_bytes(4, "big") + text for text in texts)

    towards = hkdf(secret, start + exchange.public + own + names(b"f1", "nörth".encode(), b"south"))
    back = hkdf(secret, start + own + exchange.public + names(b"f1", b"south", "nörth".encode()))
    seal(sealer)
    header, sealed = seal(sealer)
    assert AESGCM(towards).decrypt((1).to_bytes(12, "big"), sealed, header) == TEXT
    header = FrameHeader(session=SESSION, counter=258, round=0, index=1, count=1).encode()
    assert open_frame(opener, (header, AESGCM(back).encrypt(bytes(10) + b"\x01\x02", TEXT, header))) == TEXT


def test_the_first_frame_between_known_keys_never_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = iter([X25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2)])
    monkeypatch.setattr(X25519PrivateKey, "generate", lambda: next(keys), raising=False)
    first, second = KeyExchange(), KeyExchange()
    sealer, _ = first.derive(second.public, own="north", peer="south", federation="f1", session=SESSION)
    header, sealed = seal(sealer, b"body")
    assert header.hex() == KNOWN_HEADER
    assert sealed.hex() == KNOWN_SEALED


@pytest.mark.parametrize(
    "public",
    [
        bytes(32),  # the points of small order, RFC 7748 section 6.1: their shared secret is zero
        b"\x01" + bytes(31),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        b"\xec" + b"\xff" * 30 + b"\x7f",
        b"\xed" + b"\xff" * 30 + b"\x7f",
        b"\xee" + b"\xff" * 30 + b"\x7f",
        b"",
        bytes(31),
        bytes(33),
    ],
)
def test_public_keys_without_a_secret_are_refused(public: bytes) -> None:
    with pytest.raises(WireError, match="not a usable X25519 key"):
        KeyExchange().derive(public, own="north", peer="south", federation="f1", session=SESSION)


def test_a_reflected_greeting_is_refused() -> None:
    exchange, other = KeyExchange(), KeyExchange()
    with pytest.raises(WireError, match="reflection"):
        exchange.derive(exchange.public, own="north", peer="south", federation="f1", session=SESSION)
    with pytest.raises(WireError, match="reflection"):
        other.derive(KeyExchange().public, own="north", peer="north", federation="f1", session=SESSION)


@pytest.mark.parametrize("public", [bytes(32), None])
def test_the_private_key_serves_once_and_is_gone(public: bytes | None) -> None:
    gc.collect()
    exchange = KeyExchange()
    held = [thing for thing in gc.get_referents(exchange.__dict__) if isinstance(thing, X25519PrivateKey)]
    assert len(held) == 1
    del held
    names = {"own": "north", "peer": "south", "federation": "f1", "session": SESSION}
    if public:
        with pytest.raises(WireError):
            exchange.derive(public, **names)  # type: ignore[arg-type]
    else:
        exchange.derive(KeyExchange().public, **names)  # type: ignore[arg-type]
    assert not [thing for thing in gc.get_referents(exchange.__dict__) if isinstance(thing, X25519PrivateKey)]
    with pytest.raises(WireError, match="needs a fresh one"):
        exchange.derive(KeyExchange().public, **names)  # type: ignore[arg-type]


def test_every_sealing_takes_a_new_counter_and_the_last_is_refused() -> None:
    sealer, opener = one_way()
    frames = [seal(sealer) for _ in range(3)]
    assert len({sealed for _, sealed in frames}) == 3
    assert [FrameHeader.decode(header).counter for header, _ in frames] == [0, 1, 2]
    assert sealer.frames_left == MAX_FRAMES - 3
    sealer.frames_left = 1
    last = seal(sealer)
    assert FrameHeader.decode(last[0]).counter == MAX_FRAMES - 1
    for _ in range(2):
        with pytest.raises(WireError, match="renew their keys"):
            seal(sealer)
    assert open_frame(opener, last) == TEXT
    refused(opener, frames[0], "replayed")


def test_a_failed_sealing_gives_its_counter_to_nobody() -> None:
    sealer, _ = one_way()
    with pytest.raises(Exception, match="Buffer"):  # a read-only buffer is a mistake of the caller
        sealer.seal(0, 1, 1, memoryview(TEXT), memoryview(bytes(len(TEXT) + TAG_BYTES)))
    assert FrameHeader.decode(seal(sealer)[0]).counter == 1


def test_frames_are_written_into_the_callers_buffer_and_nothing_is_copied() -> None:
    sealer, opener = one_way()
    buffer, plaintext = bytearray(MAX_FRAME_BYTES), bytearray(MAX_CHUNK_BYTES)
    target = bytearray(MAX_CHUNK_BYTES)
    opener.open(*sealer.seal(0, 1, 1, memoryview(plaintext), memoryview(buffer)), memoryview(target))
    tracemalloc.start()
    try:
        header, sealed = sealer.seal(0, 1, 1, memoryview(plaintext), memoryview(buffer))
        opener.open(header, sealed, memoryview(target))
        assert tracemalloc.get_traced_memory()[1] < MAX_CHUNK_BYTES / 8
    finally:
        tracemalloc.stop()
    assert sealed.obj is buffer
    _, short = sealer.seal(0, 1, 1, memoryview(plaintext)[:10], memoryview(buffer))
    assert short.nbytes == 10 + TAG_BYTES


@pytest.mark.parametrize(("plaintext", "buffer"), [(10, 25), (0, 15), (MAX_CHUNK_BYTES + 1, MAX_FRAME_BYTES + 1)])
def test_what_fits_no_frame_or_buffer_is_not_sealed(plaintext: int, buffer: int) -> None:
    sealer, _ = one_way()
    with pytest.raises(WireError, match="fit neither"):
        sealer.seal(0, 1, 1, memoryview(bytes(plaintext)), memoryview(bytearray(buffer)))
    assert sealer.frames_left == MAX_FRAMES


def test_frames_in_the_clear_pass_the_same_checks_of_their_header() -> None:
    sealer, opener = ClearSealer(SESSION), ClearOpener(SESSION)
    frames = [seal(sealer, bytes([number])) for number in range(3)]
    assert [sealed for _, sealed in frames] == [b"\0", b"\1", b"\2"]
    assert open_frame(opener, frames[1]) == b"\1"
    refused(opener, frames[1], "replayed")
    refused(opener, frames[0], "replayed")
    refused(opener, seal(ClearSealer(b"session2")), "frame of session")
    with pytest.raises(WireError, match="are expected"):
        opener.open(frames[2][0], memoryview(b"\2\2"), memoryview(bytearray(1)))
    assert open_frame(opener, frames[2]) == b"\2"


@pytest.mark.parametrize("clear", [False, True])
def test_a_descriptor_is_opened_if_its_header_agrees(clear: bool) -> None:
    sealer, opener = (ClearSealer(SESSION), ClearOpener(SESSION)) if clear else one_way()
    plaintext = DESCRIPTOR.encode()
    header, sealed = seal(sealer, plaintext, 0, 4, 3)
    assert opener.open_descriptor(header, memoryview(sealed)) == DESCRIPTOR
    with pytest.raises(WireError, match="replayed"):
        opener.open_descriptor(header, memoryview(sealed))
    for index, count, round_index in ((1, 4, 3), (0, 5, 3), (0, 4, 2)):
        header, sealed = seal(sealer, plaintext, index, count, round_index)
        with pytest.raises(WireError, match="another"):
            opener.open_descriptor(header, memoryview(sealed))
    for data, words in (
        (TEXT[:50], "descriptor: "),
        (bytes(MAX_DESCRIPTOR_BYTES + 1), "where a descriptor"),
        (b"", "wh"),
    ):
        header, sealed = seal(sealer, data, 0)
        with pytest.raises(WireError, match=words):
            opener.open_descriptor(header, memoryview(sealed))
    with pytest.raises(WireError, match="where a descriptor"):
        opener.open_descriptor(header, memoryview(b""))
