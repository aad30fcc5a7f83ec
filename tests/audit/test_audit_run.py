"""A whole audit: what it writes, that it can be repeated, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from flop_p2p.audit import audit_leakage
from flop_p2p.errors import ConfigError, FlopError, RunError


def silent(text: str, done: int, total: int) -> None:
    assert 0 <= done <= total, text


def test_every_row_says_what_the_attacker_knows(audited: Any, tmp_path: Path) -> None:
    settings = audited(model__name="small-cnn", audit__inversion_batches="1,2")
    results = audit_leakage(settings, tmp_path, silent).results
    rows = results["rows"]
    assert results["moments"] == [0, 2]
    assert all(row["knows"] for row in rows)
    inversion = {(row["round"], row["source"], row["batch"], row["exposure"]) for row in rows if "exposure" in row}
    steps = {"full sharing", "body, known head", "body, surrogate head", "body, dummy head", "masked, k = 2"}
    for moment in (0, 2):
        for batch in (1, 2):
            found = {name for at, source, size, name in inversion if (at, source, size) == (moment, "one step", batch)}
            assert found == steps | {"body, known head, noise"}
    assert {source for _, source, _, _ in inversion} == {"one step", "message"}
    labels = [row for row in rows if row["attack"] == "labels" and row["batch"] == 1]
    assert {row["rate"]["mean"] for row in labels if row["method"] == "iDLG"} == {1.0}
    assert {row["rate"]["count"] for row in labels} == {4}
    assert {row["verdict"] for row in rows} <= {"better than chance", "no better than chance", "undecided"}


def test_the_same_seed_gives_the_same_file(audited: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        audit_leakage(audited(audit__moments="0"), tmp_path / name, silent)
    assert (tmp_path / "a" / "audit.json").read_bytes() == (tmp_path / "b" / "audit.json").read_bytes()
    audit_leakage(audited(audit__moments="0", seed=1), tmp_path / "c", silent)
    assert json.loads((tmp_path / "c" / "audit.json").read_text())["rows"]
    assert (tmp_path / "a" / "audit.json").read_bytes() != (tmp_path / "c" / "audit.json").read_bytes()


def test_rows_of_a_table_have_labels_to_recover_but_no_images(audited: Any, tmp_path: Path) -> None:
    settings = audited(data__source="breast-cancer", data__partition="iid", audit__moments="0")
    results = audit_leakage(settings, tmp_path, silent).results
    assert "rows of a table" in results["skipped"]["inversion"]
    assert {row["method"] for row in results["rows"]} == {
        "iDLG", "known head", "surrogate head, its own", "surrogate head, fitted",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "error", "text"),
    [
        ({"audit__moments": "3"}, ConfigError, r"audit.moments: 3 is after the last round, 2"),
        ({"method": "local"}, ConfigError, r"nothing is left to do. inversion: local exchanges nothing, so"),
        ({"data__sites": 1}, ConfigError, r"nothing is left to do. inversion: there is one site alone"),
        ({"audit__inversion_batches": "999"}, ConfigError, r"audit.inversion_batches: no site has 999"),
        (
            {"data__source": "breast-cancer", "data__partition": "iid", "audit__attacks": "inversion"},
            ConfigError,
            r"audit.attacks: nothing is left to do. inversion: the samples are rows of a table",
        ),
    ],
)
def test_what_cannot_be_attacked_is_refused(
    overrides: dict[str, Any], error: type[Exception], text: str, audited: Any, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        audit_leakage(audited(**overrides), tmp_path, silent)


def test_masked_neighbours_may_have_fewer_images_than_are_looked_for(audited: Any, tmp_path: Path) -> None:
    settings = audited(
        data__partition="dirichlet:0.3", data__sites=6, data__limit_images=60, seed=1, training__rounds=1,
        audit__attacks="inversion", audit__inversion_images=28, audit__inversion_batches="7",
    )  # fmt: skip
    rows = audit_leakage(settings, tmp_path, silent).results["rows"]
    masked = [row for row in rows if row["exposure"].startswith("masked")]
    assert {row["source"] for row in masked} == {"one step", "message"}
    assert all(row["psnr"]["count"] < 14 * row["attacks"] for row in masked)


def test_a_topology_that_does_not_exist_is_refused_before_any_attack(audited: Any, tmp_path: Path) -> None:
    settings = audited(audit__attacks="inversion,membership", audit__membership_topologies="ring,circle")
    with pytest.raises(FlopError, match="circle"):
        audit_leakage(settings, tmp_path / "out", lambda text, done, total: pytest.fail(text))
    assert not (tmp_path / "out").exists()


def test_a_late_error_leaves_what_was_found(audited: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ConfigError("too late")

    monkeypatch.setattr("flop_p2p.audit.run.recover_all", fail)
    told: list[int] = []
    with pytest.raises(ConfigError, match="too late"):
        audit_leakage(audited(), tmp_path, silent, lambda audit: told.append(len(audit.pictures)))
    found = json.loads((tmp_path / "audit.json").read_text())
    assert {row["attack"] for row in found["rows"]} == {"inversion"}
    assert not found["complete"]
    assert told == [2]


def test_every_finished_attack_is_reported_once_more(audited: Any, tmp_path: Path) -> None:
    told = []
    settings = audited(audit__moments="0", audit__attacks="labels", privacy__noise_multiplier=2.0)
    audit = audit_leakage(settings, tmp_path, silent, lambda audit: told.append(audit.results["complete"]))
    assert told == [False, True]
    assert audit.results == json.loads((tmp_path / "audit.json").read_text())
    assert audit.results["attacked"]["privacy"] == {
        "masking": "none", "noise_multiplier": 2.0, "clipping_norm": 1.0,
    }  # fmt: skip


def test_a_head_without_output_layer_is_told(audited: Any, tmp_path: Path) -> None:
    settings = audited(audit__moments="0", audit__attacks="labels", model__private=["body.1.*"])
    results = audit_leakage(settings, tmp_path, silent).results
    assert "no linear output layer" in results["skipped"]["iDLG"]
    assert "iDLG" not in {row["method"] for row in results["rows"]}
    assert results["rows"]


def test_no_directory_is_overwritten(audited: Any, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(RunError, match="not empty; choose another --out"):
        audit_leakage(audited(), tmp_path, silent)
