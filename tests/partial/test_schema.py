"""The schema's hash must tell two bodies apart exactly when their names, order, shapes or dtypes differ."""

from collections.abc import Sequence
from math import prod

from hypothesis import given
from hypothesis import strategies as st

from flop_p2p.partial import Schema, TensorSpec

names = st.text(st.characters(categories=("L", "N"), include_characters="._"), min_size=1, max_size=8)
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
tensors = st.lists(st.tuples(names, shapes), max_size=6, unique_by=lambda pair: pair[0])


def schema(pairs: Sequence[tuple[str, tuple[int, ...]]]) -> Schema:
    return Schema(tuple(TensorSpec(name, shape) for name, shape in pairs))


@given(tensors, tensors)
def test_hashes_are_equal_exactly_for_equal_schemas(first: list, second: list) -> None:
    assert schema(first).sha256 == schema(list(first)).sha256
    assert (schema(first).sha256 == schema(second).sha256) == (first == second)


@given(tensors.filter(lambda pairs: len(pairs) > 1), st.randoms(use_true_random=False))
def test_order_changes_the_hash(pairs: list, random: object) -> None:
    shuffled = pairs[1:] + pairs[:1]
    assert schema(pairs).sha256 != schema(shuffled).sha256


@given(tensors.filter(bool), st.data())
def test_one_name_shape_or_dtype_changes_the_hash(pairs: list, data: st.DataObject) -> None:
    where = data.draw(st.integers(0, len(pairs) - 1))
    name, shape = pairs[where]
    others = {
        "name": TensorSpec(name + "'", shape),
        "another axis": TensorSpec(name, (*shape, 1)),
        "dtype": TensorSpec(name, shape, "float16"),
    }
    original = schema(pairs)
    for what, spec in others.items():
        changed = Schema((*original.tensors[:where], spec, *original.tensors[where + 1 :]))
        assert changed.sha256 != original.sha256, what


def test_the_hash_is_the_same_everywhere() -> None:
    body = schema([("conv.weight", (2, 1, 3, 3)), ("conv.bias", (2,))])
    assert body.sha256 == "197162b2c8484e1e90c180643f3eb0e0f5c3e4e37890b663bec2357e9109e9c2"


@given(tensors)
def test_offsets_tile_the_vector(pairs: list) -> None:
    body = schema(pairs)
    end = 0
    for spec in body.tensors:
        start, stop = body.offsets[spec.name]
        assert (start, stop - start) == (end, prod(spec.shape))
        end = stop
    assert body.parameters == end
    assert body.names == tuple(name for name, _ in pairs)
