"""Intervals against published values, and what they allow to be said."""

import pytest

from flop_p2p.audit.intervals import inversion_verdict, mean_interval, rate_interval, verdict


def test_student_t() -> None:
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval["mean"] == 2
    assert interval["high"] - 2 == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # t(0.975, 2), deviation 1
    assert mean_interval([5.0]) == {"mean": 5.0, "low": None, "high": None, "count": 1}


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129), (81, 263, 0.2527, 0.3676)],
)
def test_clopper_and_pearson(hits: int, trials: int, low: float, high: float) -> None:
    interval = rate_interval(hits, trials)
    assert (interval["low"], interval["high"]) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.4, 0.6, "better than chance"),
        (0.3, 0.6, "undecided"),
        (0.1, 0.31, "undecided"),  # the mean lies below; that proves nothing
        (0.1, 0.3, "no better than chance"),
        (None, None, "undecided"),
    ],
)
def test_only_an_interval_proves(low: float | None, high: float | None, said: str) -> None:
    assert verdict({"low": low, "high": high}, 0.3) == said


@pytest.mark.parametrize(
    ("gain", "hits", "said"),
    [
        ((0.1, 3.0), 0, "better than chance"),
        ((-3.0, 0.1), 0, "undecided"),
        ((-3.0, -0.1), 0, "no better than chance"),
        ((-3.0, -0.1), 8, "better than chance"),  # rough likenesses, and all of them of the right patient
        ((-3.0, 0.1), 8, "better than chance"),
        ((-3.0, -0.1), 1, "no better than chance"),  # 0.3 to 53 %, where chance is 1 %
        ((-3.0, 0.1), 1, "undecided"),
        ((-3.0, -0.1), None, "no better than chance"),
        ((-3.0, 0.1), None, "undecided"),
        ((0.1, 3.0), None, "better than chance"),
        ((None, None), 8, "better than chance"),
    ],
)
def test_images_that_are_identified_were_found(gain: tuple[float, float], hits: int | None, said: str) -> None:
    identified, chance = (None, None) if hits is None else (rate_interval(hits, 8), 0.01)
    assert inversion_verdict(dict(zip(("low", "high"), gain, strict=True)), identified, chance) == said
