"""Lines over restarts, and what a node says of itself at the end."""

import json
from pathlib import Path
from typing import Any

import pytest

from flop_p2p.errors import NodeError
from flop_p2p.node.records import Records
from flop_p2p.node.summary import last_line


def line(number: int) -> dict[str, Any]:
    return {"round": number, "site": "north", "train_loss": 0.5 / number}


def test_lines_of_rounds_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    records = Records(tmp_path, 0)
    for number in (1, 2, 3):
        records.add(line(number))
    again = Records(tmp_path, 2)
    assert [each["round"] for each in again.lines] == [1, 2]
    again.add(line(3))
    assert [json.loads(text)["round"] for text in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_a_line_half_written_of_a_round_that_is_run_again_is_no_damage(tmp_path: Path) -> None:
    records = Records(tmp_path, 0)
    records.add(line(1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2, "si')
    assert Records(tmp_path, 1).lines == [line(1)]
    with (tmp_path / "metrics.jsonl").open("w") as file:
        file.write('{"round": 1, "si')
    with pytest.raises(NodeError, match="line 1: damaged"):
        Records(tmp_path, 1)


def test_a_file_that_keeps_all_its_lines_is_not_written_again(tmp_path: Path) -> None:
    Records(tmp_path, 0).add(line(1))
    before = (tmp_path / "metrics.jsonl").stat()
    Records(tmp_path, 1)
    after = (tmp_path / "metrics.jsonl").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_damaged_summary_is_named(tmp_path: Path) -> None:
    records = Records(tmp_path, 0)
    assert records.finished() is None
    records.finish({"complete": True})
    assert records.finished() == {"complete": True}
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(NodeError, match=r"summary\.json: damaged"):
        records.finished()


def summary(**changes: Any) -> dict[str, Any]:
    whole = {
        "completed": 5,
        "rounds": 5,
        "complete": True,
        "absences": {},
        "skipped_rounds": [],
        "neighbours": ["east"],
        "privacy": None,
        "masked_skips": [],
    }
    return {**whole, **changes}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "finished 5 of 5 rounds; every neighbour took part in all of them"),
        ({"neighbours": []}, "finished 5 of 5 rounds; this site, which has no neighbours, took part in all of them"),
        ({"completed": 0, "complete": False}, "stopped after 0 of 5 rounds"),
        (
            {"absences": {"east": [2]}},
            "finished 5 of 5 rounds with fewer neighbours than configured: east was absent in 1 (round 2)",
        ),
        (
            {"absences": {"east": [5]}, "privacy": {"epsilon": 3.456, "budget": 4.0, "stopped": 3}},
            "finished 5 of 5 rounds with fewer neighbours than configured: east was absent in 1 (round 5); its privacy "
            "budget was spent (epsilon 3.46 of 4), so it trained and sent nothing from round 3 on",
        ),
        (
            {"privacy": {"epsilon": 3.456, "budget": 4.0, "stopped": None}},
            "finished 5 of 5 rounds; every neighbour took part in all of them",
        ),
        (
            {"absences": {"east": [2], "west": [2]}, "masked_skips": [2]},
            "finished 5 of 5 rounds with fewer neighbours than configured: east was absent in 1 (round 2); "
            "west was absent in 1 (round 2); no sum of masked bodies came about in 1 (round 2)",
        ),
        (
            {"skipped_rounds": list(range(1, 11)), "completed": 10, "rounds": 20, "complete": False},
            "stopped after 10 of 20 rounds with fewer neighbours than configured: this site itself missed 10 "
            "(rounds 1, 2, 3, 4, 5, 6, 7, 8, ...)",
        ),
    ],
)
def test_the_last_line_passes_no_part_off_as_the_whole(changes: dict[str, Any], sentence: str) -> None:
    assert last_line(summary(**changes)) == sentence
