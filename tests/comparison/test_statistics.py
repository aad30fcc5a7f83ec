import math

import numpy as np
import pytest
from scipy import stats

from flop_p2p.comparison.curves import merge, seed_curve
from flop_p2p.comparison.statistics import difference, estimate, rounds_to, verdict


def numbered(*values):
    return dict(enumerate(values))


def test_an_interval_is_that_of_student_over_seeds():
    values = [0.91, 0.89, 0.93, 0.90, 0.88]
    own = estimate(numbered(*values))
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (own.mean, own.low, own.high) == pytest.approx((0.902, low, high))
    assert own.per_seed == numbered(*values)


def test_an_interval_by_hand():
    # Two values 0 and 2: mean 1, deviation sqrt(2), standard error 1, t(0.975, 1) = 12.706.
    assert estimate(numbered(0.0, 2.0)).half_width == pytest.approx(12.706, abs=1e-3)


def test_one_seed_gives_no_interval_and_a_missing_value_does_not_count():
    one = estimate(numbered(0.9))
    assert (one.mean, one.low, one.high, one.half_width) == (0.9, None, None, None)
    some = estimate(numbered(0.9, None, 0.7))
    assert some.mean == pytest.approx(0.8)
    assert some.counted == 2
    none = estimate(numbered(None, None))
    assert (none.mean, none.counted) == (None, 0)


def test_differences_are_paired_by_seed_and_not_by_position():
    values = {3: 0.80, 1: 0.60, 2: None}
    reference = {1: 0.61, 2: 0.5, 3: 0.81, 4: 0.1}
    paired = difference(values, reference).estimate
    # Both are 0.01 below: no spread at all, though the values themselves are far apart.
    assert paired.mean == pytest.approx(-0.01)
    assert paired.half_width == pytest.approx(0, abs=1e-12)
    assert paired.per_seed[2] is None
    assert 4 not in paired.per_seed


@pytest.mark.parametrize(
    ("centre", "spread", "expected"),
    [
        (0.0, 0.001, "matches"),
        (-0.008, 0.001, "matches"),
        (0.05, 0.01, "matches"),
        (-0.03, 0.001, "falls short"),
        (-0.01, 0.001, "undecided"),
        (0.0, 0.02, "undecided"),
        (-0.03, 0.05, "undecided"),
    ],
)
def test_the_verdict_follows_from_where_the_interval_lies(centre, spread, expected):
    own = estimate(numbered(*(centre + spread * step for step in (-1, -0.5, 0, 0.5, 1))))
    assert verdict(own) == expected
    assert (own.low > -0.01) == (expected == "matches")


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_fewer_than_five_seeds_give_no_verdict(seeds):
    assert difference(dict.fromkeys(range(seeds), 0.9), dict.fromkeys(range(seeds), 0.5)).verdict is None
    assert difference(numbered(0.9, 0.9, 0.9, 0.9, None), dict.fromkeys(range(5), 0.5)).verdict is None


def test_rounds_to_a_target_are_the_first_evaluated_round_that_reaches_it():
    assert rounds_to(0.8, (2, 4, 6), (0.7, 0.8, 0.75)) == 4
    assert rounds_to(0.9, (2, 4, 6), (0.7, 0.8, 0.75)) is None


def metrics_lines(*evaluated, last):
    """Lines of two sites; accuracy is a tenth of the round, plus and minus 0.05."""
    return [
        {
            "round": number,
            "test": {"accuracy": number / 10 + shift} if number in evaluated else None,
            "bytes_total": 100 * number,
        }
        for number in range(1, last + 1)
        for shift in (-0.05, 0.05)
    ]


def test_a_curve_has_the_evaluated_rounds_only():
    curve = seed_curve(metrics_lines(2, 5, last=5))
    assert curve.rounds == (2, 5)
    assert curve.accuracy == pytest.approx((0.2, 0.5))
    assert curve.bytes_total == (200, 500)


def test_a_seed_that_stopped_early_keeps_its_last_accuracy():
    merged = merge({0: seed_curve(metrics_lines(2, 4, 6, last=6)), 1: seed_curve(metrics_lines(2, 3, last=3))})
    assert merged.rounds == (2, 3, 4, 6)
    assert merged.accuracy == pytest.approx((0.2, 0.25, 0.35, 0.45))
    assert merged.bytes_total == (200, 250, 350, 450)
    assert merged.low[0] == pytest.approx(0.2)
    assert all(math.isfinite(limit) for limit in merged.high)
