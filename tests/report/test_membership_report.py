"""The table and pictures of membership inference say what the rows say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flop_p2p.errors import RunError
from flop_p2p.report.membership import draw_membership, membership_cells, membership_headings, membership_notes

Row = dict[str, Any]


def row(**overrides: Any) -> Row:
    grid = np.geomspace(0.01, 1, 5)
    return {
        "attack": "membership",
        "method": "p2p-flop",
        "topology": "ring",
        "holder": "neighbour",
        "distance": 1,
        "masking": "none",
        "head": "fitted",
        "test": "LiRA",
        "victims": 8,
        "shadows": 16,
        "accuracy": {"members": 0.99, "non_members": 0.62},
        "members": 1000,
        "non_members": 1000,
        "patients": 111,
        "auc": {"value": 0.78, "low": 0.765, "high": 0.79},
        "tpr": [{"fpr": 0.1, "value": 0.44, "low": 0.41, "high": 0.47}],
        "roc": {"fpr": grid.tolist(), "tpr": np.sqrt(grid).tolist()},
        "verdict": "better than chance",
    } | overrides


def both_tests(**overrides: Any) -> list[Row]:
    return [row(test="loss threshold", verdict="no better than chance") | overrides, row(**overrides)]


@pytest.fixture
def rows() -> list[Row]:
    local = both_tests(method="local", topology=None, holder="anyone", distance=None, head="known")
    server = both_tests(method="fedavg", topology=None, holder="server", head="shared")
    ring = [
        one
        for hops in (1, 2, 3)
        for masking in ("none", "pairwise")
        for one in both_tests(distance=hops, masking=masking)
    ]
    own = both_tests(head="own", verdict="undecided", tpr=[])
    return local + server + ring + own + both_tests(topology="full", accuracy={"members": 1.0, "non_members": 0.7})


def test_a_line_for_each_position_and_head(rows: list[Row]) -> None:
    lines = membership_cells(rows)
    assert len(lines) == len(rows) / 2
    headings = membership_headings(rows)
    assert headings[-2:] == ("found at 10 %", "verdict")
    assert all(len(line) == len(headings) for line in lines)
    assert lines[0] == (
        "local",
        "anyone",
        "known",
        "0.780 (0.765 to 0.790)",
        "0.780 (0.765 to 0.790)",
        "44.0 (41.0 to 47.0) %",
        "better than chance",
    )
    assert [line[0] for line in lines[-2:]] == ["p2p-flop, ring", "p2p-flop, full"]
    assert [line[1] for line in lines[1:5]] == [
        "server, 1 hop", "neighbour, 1 hop", "neighbour, 1 hop, masked", "neighbour, 2 hops"
    ]  # fmt: skip
    assert [line[-2:] for line in lines if line[2] == "own"] == [("–", "undecided")]


def test_notes_say_how_far_models_overfit_and_what_the_figures_rest_on(rows: list[Row]) -> None:
    text = " ".join(membership_notes(rows))
    assert "111 patients" in text
    assert "each of 18 federations the target, 16 are its shadows" in text
    assert "99 to 100 % on members, 62 to 70 % on others" in text


def test_pictures(rows: list[Row], tmp_path: Path) -> None:
    paths = draw_membership(rows, tmp_path)
    assert [path.name for path in paths] == ["membership-distance.png", "membership-roc.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_pictures_of_a_site_alone(rows: list[Row], tmp_path: Path) -> None:
    assert len(draw_membership(rows[:2], tmp_path)) == 2


def test_a_picture_that_cannot_be_written(rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"membership-distance\.png"):
        draw_membership(rows, tmp_path / "nowhere")
