"""Fixed-point numbers: as precise as told, exact sums in any order, and no silent wrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flop_p2p.errors import TrainingError, WireError
from flop_p2p.gossip.fixed_point import FixedPoint
from flop_p2p.wire.encodings import SPAN

FIXED = FixedPoint(64.0)
BODIES = arrays(np.float32, st.integers(1, 50), elements=st.floats(-64, 64, width=32))


def decoded(fixed: FixedPoint, parts: list[np.ndarray], share: float = 1.0) -> np.ndarray:
    own = np.zeros(len(parts[0]), np.float32)
    fixed.mix(own, 0.0, [part.copy() for part in parts], share)
    return own


@given(BODIES, st.floats(0, 1))
def test_a_number_is_rounded_by_half_a_step_and_by_what_float32_rounds(body: np.ndarray, weight: float) -> None:
    exact = weight * body.astype(np.float64)
    found = decoded(FIXED, [FIXED.encode(body, weight)])
    assert (np.abs(found - exact) <= FIXED.step / 2 + 4 * 2.0**-24 * np.abs(exact)).all()


@given(st.data(), st.integers(2, 6))
def test_the_sum_is_that_of_the_weighted_bodies_in_any_order(data: st.DataObject, count: int) -> None:
    size = data.draw(st.integers(1, 20))
    of_size = arrays(np.float32, size, elements=st.floats(-64, 64, width=32))
    bodies = [data.draw(of_size) for _ in range(count)]
    weight = 1 / count
    parts = [FIXED.encode(body, weight) for body in bodies]
    found = decoded(FIXED, parts)
    np.testing.assert_allclose(found, weight * np.sum(bodies, axis=0, dtype=np.float64), atol=count * 6e-6, rtol=0)
    np.testing.assert_array_equal(found, decoded(FIXED, data.draw(st.permutations(parts))))


@pytest.mark.parametrize("extreme", [64.0, -64.0])
def test_bodies_at_the_end_of_the_range_do_not_wrap(extreme: float) -> None:
    body = np.full(10, extreme, np.float32)
    parts = [FIXED.encode(body, 1 / 7) for _ in range(7)]
    np.testing.assert_allclose(decoded(FIXED, parts), body, rtol=1e-6)


@pytest.mark.parametrize("bad", [64.001, -70.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("position", [0, SPAN, 2 * SPAN - 1])
def test_a_number_out_of_range_is_refused_and_named(bad: float, position: int) -> None:
    body = np.zeros(2 * SPAN, np.float32)
    body[position] = bad
    with pytest.raises(TrainingError, match=rf"number {position} of the body is .*privacy\.masking_range"):
        FIXED.check(body)


def test_a_body_within_the_range_is_not_refused() -> None:
    FIXED.check(np.linspace(-64, 64, 3 * SPAN, dtype=np.float32))


def test_a_sum_that_no_bodies_can_have_is_refused_and_changes_nothing() -> None:
    own = np.arange(3, dtype=np.float32)
    parts = [FIXED.encode(np.full(3, 60, np.float32), 1 / 3) for _ in range(2)]
    parts[1][2] += np.uint32(20 / FIXED.step)
    with pytest.raises(WireError, match="out of range"):
        FIXED.mix(own, 1 / 3, parts, 2 / 3)
    np.testing.assert_array_equal(own, [0, 1, 2])


def test_own_body_and_factor_count_as_told() -> None:
    own = np.full(4, 2.0, np.float32)
    parts = [FIXED.encode(np.full(4, value, np.float32), 0.25) for value in (1.0, 3.0)]
    FIXED.mix(own, 0.5, parts, 0.5)
    np.testing.assert_allclose(own, 0.5 * 2 + 0.25 * 1 + 0.25 * 3)
    parts = [FIXED.encode(np.full(4, value, np.float32), 0.25) for value in (1.0, 3.0)]
    FIXED.mix(own, 0.0, parts, 0.5, factor=2.0)
    np.testing.assert_allclose(own, 2.0)
