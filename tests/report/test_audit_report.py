"""What the tables of an audit say."""

from typing import Any

import pytest

from flop_p2p.audit import Audit
from flop_p2p.report.audit import audit_markdown


def audit_of_labels(said: str, complete: bool = True, noise: float = 0.0) -> Audit:
    row = {
        "attack": "labels", "round": 0, "batch": 1, "method": "known head", "knows": "the head", "majority": 0.5,
        "rate": {"mean": 0.5, "low": 0.2, "high": 0.8, "count": 8}, "verdict": said,
    }  # fmt: skip
    attacked: dict[str, Any] = {
        "data": "digits", "shape": [1, 8, 8], "partition": "iid", "sites": {"a": 1, "b": 2}, "method": "p2p-flop",
        "topology": "ring", "model": "mlp", "parameters": {"body": 3, "head": 4}, "seed": 0,
        "privacy": {"masking": "none", "noise_multiplier": noise, "clipping_norm": 1.5},
    }  # fmt: skip
    skipped = {"iDLG": "the head has no linear output layer"}
    return Audit({"attacked": attacked, "skipped": skipped, "complete": complete, "rows": [row]}, [])


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("better than chance", "| better than the majority guess |"),
        ("no better than chance", "| no better than the majority guess |"),
        ("undecided", "| undecided |"),
    ],
)
def test_labels_are_compared_to_the_majority_guess(said: str, shown: str) -> None:
    text = audit_markdown(audit_of_labels(said))
    assert shown in text
    assert "iDLG: left out. the head has no linear output layer." in text


def test_gradients_before_the_noise_are_told_apart() -> None:
    noised = audit_markdown(audit_of_labels("undecided", noise=2.0))
    assert "multiplier 2, clipping norm 1.5): all rows attack gradients before they are clipped" in noised
    assert "clipping norm" not in audit_markdown(audit_of_labels("undecided"))


def test_an_audit_that_did_not_end_says_so() -> None:
    assert "did not end" in audit_markdown(audit_of_labels("undecided", complete=False))
    assert "did not end" not in audit_markdown(audit_of_labels("undecided"))
