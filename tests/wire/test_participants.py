"""The list of participants: what is packed comes back, and whatever else the bytes are, they are refused."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flop_p2p.errors import WireError
from flop_p2p.wire.participants import MAX_LIST_BYTES, MAX_PARTICIPANTS, Participant, pack, unpack

PARTICIPANTS = st.builds(
    Participant,
    st.text(min_size=1, max_size=64),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=64, max_size=64),
)
ONE = ["graz", bytes(32), bytes(64)]


@given(st.lists(PARTICIPANTS, min_size=1, max_size=8, unique_by=lambda each: each.name))
def test_a_list_comes_back_in_the_order_of_the_names(participants: list[Participant]) -> None:
    assert unpack(pack(participants)) == tuple(sorted(participants))


@given(st.binary(max_size=300))
def test_other_bytes_are_refused(data: bytes) -> None:
    try:
        unpack(data)
    except WireError:
        return
    assert pack(unpack(data))  # by chance a list


@pytest.mark.parametrize(
    "content",
    [
        *([], [[]], [ONE, ONE], [["wien", *ONE[1:]], ONE], [[*ONE, 1]], {"a": 1}, [["graz", bytes(31), bytes(64)]]),
        *([["graz", bytes(32), bytes(63)]], [[1, bytes(32), bytes(64)]], ["graz", bytes(32), bytes(64)], 7, None),
        [[f"{number:05}", bytes(32), bytes(64)] for number in range(MAX_PARTICIPANTS + 1)],
    ],
)
def test_another_structure_is_refused(content: object) -> None:
    with pytest.raises(WireError, match="list of participants"):
        unpack(msgpack.packb(content))


def test_too_many_bytes_are_refused_before_they_are_read() -> None:
    with pytest.raises(WireError, match="at most"):
        unpack(bytes(MAX_LIST_BYTES + 1))
