"""What differs between two federations, even if the other one is made to do harm."""

import bisect
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flop_p2p.config import FederationSettings, GossipSettings, Member, ModelSettings, SampleSettings, TrainingSettings
from flop_p2p.identity.members import difference

Make = Callable[..., FederationSettings]


def samples(*names: str) -> SampleSettings:
    return SampleSettings(task="multiclass", class_names=names, shape=(1, 8, 8))


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "number": ({"seed": 3}, "seed is 0 here and 3 there"),
    "nested": ({"gossip": GossipSettings(deadline=5)}, "gossip.deadline is 60.0 here and 5.0 there"),
    "text": ({"name": "Süd"}, 'name is "retina" here and "Süd" there'),
    "nothing": ({"model": ModelSettings(name="mlp")}, 'model.name is null here and "mlp" there'),
    "one of a list": ({"samples": samples("a", "x", "c")}, 'samples.class_names.2 is "b" here and "x" there'),
    "a longer list": (
        {"samples": samples("a", "b", "c", "d")},
        'samples.class_names is ["a", "b", "c"] here and ["a", "b", "c", "d"] there',
    ),
    "revision first": (
        {"revision": 2, "seed": 1, "gossip": GossipSettings(staleness=9)},
        "revision is 1 here and 2 there",
    ),
    "of two the first": ({"seed": 1, "gossip": GossipSettings(staleness=9)}, "gossip.staleness is 1 here and 9 there"),
}


@pytest.mark.parametrize(("values", "text"), CHANGES.values(), ids=CHANGES)
def test_the_first_difference_is_named(federation: Make, values: dict[str, Any], text: str) -> None:
    assert difference(federation(), federation(**values).canonical) == text


def test_members_are_compared_by_name(federation: Make, member: Callable[..., Member]) -> None:
    own = federation()
    turned = own.members[::-1]
    assert difference(own, federation(members=turned, seed=1).canonical) == "seed is 0 here and 1 there"
    assert difference(own, federation(members=own.members[:3]).canonical) == "member west is missing there"
    more = (*own.members, member("fifth"))
    assert difference(own, federation(members=more, seed=1).canonical) == "member fifth is missing here"
    other_keys = (member("east", keys="thief"), *own.members[1:])
    assert difference(own, federation(members=other_keys).canonical) == "member east has another curve_key"
    counted = (*own.members[:3], own.members[3].model_copy(update={"samples": 5}))
    assert difference(own, federation(members=counted).canonical) == "member west has another samples"


def test_what_only_one_of_them_has_is_named(federation: Make) -> None:
    values = json.loads(federation().canonical)
    values["training"]["new"] = 1
    assert difference(federation(), json.dumps(values)) == "training.new is missing here"
    del values["training"]["new"], values["training"]["lr"]
    assert difference(federation(), json.dumps(values)) == "training.lr is missing there"
    del values["name"]
    assert difference(federation(), json.dumps(values)) == "name is missing there"


def test_long_values_are_shown_from_where_they_differ(federation: Make) -> None:
    long = TrainingSettings(augmentation=tuple(f"crop:{number}" for number in range(40)))
    longer = long.model_copy(update={"augmentation": (*long.augmentation, "vertical-flip")})
    text = difference(federation(training=long), federation(training=longer).canonical)
    assert text.startswith("training.augmentation is …")
    assert '"vertical-flip"] there' in text
    assert len(text) < 200


def test_equal_settings_written_in_another_way(federation: Make) -> None:
    own = federation()
    assert difference(own, json.dumps(json.loads(own.canonical), indent=1)).startswith("nothing but the way")


DEEP = "[" * 100_000
NESTED = '{"a":' * 900 + "1" + "}" * 900
HOSTILE = {
    "empty": "",
    "no JSON": "{",
    "no object": "[]",
    "number": "1",
    "deep": DEEP,
    "deep members": '{"members":' + DEEP,
    "too large": json.dumps({"members": [], "name": "x" * (1 << 19)}),
    "huge number": '{"members":[],"name":' + "9" * 100_000 + "}",
    "no members": "{}",
    "members no list": '{"members":{"name":"east"}}',
    "member no table": '{"members":["east"]}',
    "name no text": '{"members":[{"name":["east"]}]}',
    "nameless": '{"members":[{}]}',
    "nested value": '{"members":[],"protocol":' + NESTED + ',"name":"retina"}',
    "nested name": '{"members":[],"name":' + NESTED + "}",
    "nested list": '{"members":[],"name":' + "[" * 900 + "]" * 900 + "}",
    "surrogate": '{"members":[],"name":"\\ud800\\udfff\\ud800"}',
    "terminal": json.dumps({"members": [], "name": "\x1b[2J\x07\r\n\u202e\u2028\x9b31m\x7f"}),
    "terminal in a key": json.dumps({"members": [{"name": "\x1b]0;owned\x07" * 100}], "name": "retina"}),
    "long key": json.dumps({"members": [], "a" * 10_000: 1}),
    "not finite": '{"members":[],"name":NaN,"seed":-Infinity}',
}


def check_line(text: str) -> None:
    assert 0 < len(text) < 200
    assert text.isprintable()
    text.encode()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_gives_one_short_printable_line(federation: Make, text: str) -> None:
    check_line(difference(federation(), text))


@pytest.mark.parametrize("name", ["empty", "no JSON", "no object", "deep", "too large", "huge number"])
def test_what_is_not_read_is_no_federation(federation: Make, name: str) -> None:
    assert difference(federation(), HOSTILE[name]) == "what it sent is no federation"


def test_a_value_just_shallow_enough_to_be_read(federation: Make) -> None:
    """Just below the limit of recursion reading still works, and writing no more."""
    own = federation()

    def answer(depth: int) -> str:
        return difference(own, '{"members":[],"name":' + "[" * depth + "]" * depth + "}")

    limit = bisect.bisect(range(100_000), False, key=lambda depth: answer(depth) == "what it sent is no federation")
    assert limit > 100
    for depth in range(limit - 100, limit + 2):
        check_line(answer(depth))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=80), inner, max_size=4),
    max_leaves=8,
)


@given(data=st.data(), value=JSON)
def test_any_value_in_any_place_gives_one_short_printable_line(
    federation: Make, data: st.DataObject, value: Any
) -> None:
    table = values = json.loads(federation().canonical)
    while True:
        keys = list(table) if isinstance(table, dict) else list(range(len(table)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(table[key], dict | list) or not table[key] or data.draw(st.booleans()):
            break
        table = table[key]
    table[key] = value
    check_line(difference(federation(), json.dumps(values)))


@given(st.text(max_size=200))
def test_any_text_gives_one_short_printable_line(federation: Make, text: str) -> None:
    check_line(difference(federation(), text))
