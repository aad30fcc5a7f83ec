"""AUC and rates are scikit-learn's, intervals cover what they should, and verdicts need proof."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from flop_p2p.audit.membership.figures import Scores, figures, rate_at, verdict


def guesses(gain: float, patients: int = 300, each: int = 4, seed: int = 0) -> Scores:
    """Scores ``gain`` higher for members; each patient guessed ``each`` times, members half of them."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), each)
    member = generator.permutation(len(patient)) < len(patient) // 2
    return Scores(generator.normal(size=len(patient)) + gain * member, member, patient)


def found(scores: Scores, seed: int = 1) -> dict[str, Any]:
    return figures(scores, np.random.default_rng(seed))


def test_figures_are_those_of_scikit_learn() -> None:
    scores = guesses(1.0)
    result = found(scores)
    assert result["auc"]["value"] == pytest.approx(roc_auc_score(scores.member, scores.score))
    false, true, _ = roc_curve(scores.member, scores.score)
    for point in result["tpr"]:
        assert point["value"] == pytest.approx(max(true[false <= point["fpr"]]))
        assert point["low"] <= point["value"] <= point["high"]
    assert (result["members"], result["non_members"], result["patients"]) == (600, 600, 300)
    assert np.all(np.diff(result["roc"]["tpr"]) >= 0)
    assert result["roc"]["fpr"][0] == pytest.approx(10 / 600)


@pytest.mark.parametrize(
    ("others", "rates"), [(99, []), (100, [0.1]), (999, [0.1]), (1000, [0.1, 0.01]), (10000, [0.1, 0.01, 0.001])]
)
def test_rates_go_down_to_where_ten_false_positives_are_expected(
    monkeypatch: pytest.MonkeyPatch, others: int, rates: list[float]
) -> None:
    monkeypatch.setattr("flop_p2p.audit.membership.figures.RESAMPLES", 20)
    member = np.arange(others + 50) < 50
    generator = np.random.default_rng(0)
    result = found(Scores(generator.normal(size=len(member)), member, np.arange(len(member))))
    assert [point["fpr"] for point in result["tpr"]] == rates


def test_equal_scores_are_taken_for_members_together() -> None:
    scores = Scores(np.zeros(400), np.arange(400) < 200, np.arange(400))
    result = found(scores)
    assert result["auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert [point["value"] for point in result["tpr"]] == [0.0]


def test_perfect_scores() -> None:
    member = np.arange(400) < 200
    result = found(Scores(member.astype(float), member, np.arange(400)))
    assert result["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert result["tpr"][0]["low"] == 1.0
    assert result["verdict"] == "better than chance"


def test_intervals_cover_chance_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flop_p2p.audit.membership.figures.RESAMPLES", 300)
    covered = 0
    for seed in range(40):
        area = found(guesses(0.0, each=2, seed=seed))["auc"]
        covered += area["low"] <= 0.5 <= area["high"]
    assert covered >= 34, "expected are 38 of 40; fewer than 34 come about once in 50 times"


def test_more_guesses_on_the_same_patients_do_not_narrow_the_interval() -> None:
    once = guesses(0.5, patients=400, each=1)
    often = Scores(*(np.tile(part, 9) for part in (once.score, once.member, once.patient)))
    narrow, wide = (found(scores)["auc"] for scores in (once, often))
    assert (wide["high"] - wide["low"]) / (narrow["high"] - narrow["low"]) == pytest.approx(1, abs=0.15)


def test_the_same_draw_gives_the_same_figures() -> None:
    assert found(guesses(0.3)) == found(guesses(0.3))
    assert found(guesses(0.3))["auc"] != found(guesses(0.3), seed=2)["auc"]


def test_a_rate_is_not_exceeded() -> None:
    false, true = np.array([0, 0, 0.5, 1]), np.array([0, 0.4, 0.6, 1])
    assert rate_at(false, true, 0.49) == 0.4
    assert rate_at(false, true, 0.5) == 0.6


@pytest.mark.parametrize(
    ("area", "rate", "expected"),
    [
        ((0.51, 0.55), (0.05, 0.2), "better than chance"),
        ((0.49, 0.52), (0.11, 0.19), "better than chance"),
        ((0.48, 0.52), (0.08, 0.19), "no better than chance"),
        ((0.48, 0.531), (0.08, 0.19), "undecided"),
        ((0.469, 0.49), (0.08, 0.19), "undecided"),
        ((0.48, 0.52), (0.08, 0.21), "undecided"),
    ],
)
def test_verdicts(area: tuple[float, float], rate: tuple[float, float], expected: str) -> None:
    points = [{"fpr": 0.1, "low": rate[0], "high": rate[1]}]
    assert verdict({"low": area[0], "high": area[1]}, points) == expected
