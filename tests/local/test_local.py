"""A local federation: what is refused before anything is written, what is told, and how it survives its daemons."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from flop_p2p.cli.local import Lines, _phase
from flop_p2p.config import ExperimentSettings, load_experiment, load_federation, read_toml
from flop_p2p.data import FederatedData
from flop_p2p.errors import ConfigError, FederationError, FlopError, NodeError, RunError, SplitError
from flop_p2p.local import prepare as preparation
from flop_p2p.local import run_local
from flop_p2p.local.addresses import renew_addresses
from flop_p2p.local.clock import Clock
from flop_p2p.local.prepare import LocalSite, local_sites, prepare
from flop_p2p.local.progress import DaemonState, Rounds, dead_end, last_words
from flop_p2p.node.lock import StateLock
from flop_p2p.simulation import load_data
from flop_p2p.simulation.interrupt import stop_wish

SMALL = {
    "data.source": "breast-cancer",
    "data.sites": 2,
    "model.name": "mlp",
    "topology.name": "full",
    "training.rounds": 3,
    "training.local_steps": 2,
    "gossip.deadline": 20.0,
}


ROUNDS = 120  # of real runs: some seconds


def small(**more: Any) -> ExperimentSettings:
    return load_experiment(overrides={**SMALL, **{key.replace("__", "."): value for key, value in more.items()}})


@pytest.fixture(scope="module")
def data() -> FederatedData:
    return load_data(small())


def state(
    name: str, completed: int = 0, code: int | None = None, phase: str | None = "training", others: str = "ab"
) -> DaemonState:
    """A daemon with an accuracy of completed / 10 after its last round."""
    answer = {"phase": phase, "neighbours": dict.fromkeys(set(others) - {name}), "waiting_for": []} if phase else None
    return DaemonState(LocalSite(name, Path(name)), answer, code, completed, {completed: completed / 10})


def states(*given: DaemonState) -> dict[str, DaemonState]:
    return {each.site.name: each for each in given}


# Before anything is written


@pytest.mark.parametrize(
    ("overrides", "error", "text"),
    [
        ({"model__batch_norm": "private"}, SplitError, "no BatchNorm"),
        ({"data__sites": 1}, ConfigError, "two hospitals or more"),
        ({"gossip__min_neighbours": 2}, FederationError, "min_neighbours is 2"),
        ({"method": "fedavg"}, ConfigError, "p2p-flop-alt, flop"),
    ],
)
def test_settings_that_make_no_federation_leave_nothing_behind(
    tmp_path: Path, overrides: dict[str, Any], error: type[FlopError], text: str
) -> None:
    with pytest.raises(error, match=text):
        run_local(small(**overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_preparation_that_was_cut_off_is_begun_anew(
    tmp_path: Path, data: FederatedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = local_sites(small(), data, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "write_toml", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(small(), data, sites, tmp_path)
    assert not (tmp_path / "federation.toml").exists()
    (tmp_path / ".preparing" / "sites").rename(tmp_path / "sites")  # as if cut off between two of the moves
    federation = prepare(small(), data, sites, tmp_path)
    assert load_federation(tmp_path / "federation.toml") == federation
    assert sorted(path.name for path in tmp_path.iterdir()) == ["federation.toml", "sites"]
    keys = {site.name: read_toml(site.folder / "keys" / "public.toml")["curve_key"] for site in sites}
    assert keys == {member.name: member.curve_key for member in federation.members}


def test_prepared_files_of_an_unknown_past_are_not_overwritten(tmp_path: Path, data: FederatedData) -> None:
    sites = local_sites(small(), data, tmp_path)
    prepare(small(), data, sites, tmp_path)
    (tmp_path / "federation.toml").unlink()
    secret = (sites[0].folder / "keys" / "curve.secret").read_text()
    with pytest.raises(RunError, match="cannot be written"):
        prepare(small(), data, sites, tmp_path)
    assert (sites[0].folder / "keys" / "curve.secret").read_text() == secret


def test_a_federation_that_goes_on_has_new_ports_and_the_same_id(tmp_path: Path, data: FederatedData) -> None:
    sites = local_sites(small(), data, tmp_path)
    before = prepare(small(), data, sites, tmp_path)
    values = read_toml(sites[0].settings)
    del values["bulk_listen"]
    sites[0].settings.write_text(tomli_w.dumps({**values, "checkpoint_seconds": 7.0}))
    renew_addresses(sites, tmp_path)
    after = load_federation(tmp_path / "federation.toml")
    assert after.id == before.id
    ports = [{address for each in both.members for address in (each.control, each.bulk)} for both in (before, after)]
    assert len(ports[1]) == 4
    assert not ports[0] & ports[1]
    own = [read_toml(site.settings) for site in sites]
    assert [each["listen"] for each in own] == [after.member(site.name).control for site in sites]
    assert own[1]["bulk_listen"] == after.member(sites[1].name).bulk
    assert own[0]["checkpoint_seconds"] == 7.0
    assert "bulk_listen" not in own[0]


def test_resuming_beside_a_daemon_that_still_runs_is_refused_with_its_process(
    tmp_path: Path, data: FederatedData
) -> None:
    sites = local_sites(small(), data, tmp_path)
    (tmp_path / "config.toml").write_text(tomli_w.dumps(small().model_dump(mode="json", exclude_none=True)))
    prepare(small(), data, sites, tmp_path)
    before = (tmp_path / "federation.toml").read_text()
    with StateLock(sites[1].state), pytest.raises(NodeError, match=rf"another node runs.*process {os.getpid()}"):
        run_local(small(), tmp_path, data=data, resume=True)
    assert (tmp_path / "federation.toml").read_text() == before
    assert not sites[0].log.exists()


# What is told


def test_a_round_is_told_once_and_only_when_the_slowest_has_it() -> None:
    lines = Lines(3)
    assert lines.new(states(state("a", 2), state("b", 0, phase=None))) == []
    told = lines.new(states(state("a", 2, code=0), state("b", 2)))
    assert told == ["round 1/3 complete at every hospital", "round 2/3 complete at every hospital, accuracy 0.200"]
    assert lines.new(states(state("a", 3), state("b", 2))) == []
    assert lines.new(states(state("a", 3, code=0), state("b", 3, code=0))) == [
        "round 3/3 complete at every hospital, accuracy 0.300"
    ]


def test_a_daemon_that_failed_is_told_once_and_no_round_claims_it() -> None:
    lines = Lines(3)
    there = states(state("a", 2), state("b", 1, code=-9))
    assert lines.new(there) == [
        "b ended with exit code -9 after 1 of 3 rounds, see b/node.log",
        "round 1/3 complete at every hospital, accuracy 0.100",
        "round 2/3 complete at 1 of 2 hospitals, accuracy 0.200",
    ]
    assert lines.new(there) == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (state("a", 3, code=0), "finished"),
        (state("a", 2, code=0), "[red]stopped[/]"),
        (state("a", 1, code=12), "[red]ended with exit code 12[/]"),
        (state("a", phase=None), "starting"),
        (state("a", phase="mixing"), "mixing"),
    ],
)
def test_the_table_shows_what_a_daemon_does_or_how_it_ended(given: DaemonState, shown: str) -> None:
    assert _phase(given, 3) == shown


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ((state("a", phase="starting"), state("b", phase="starting")), None),
        ((state("a", 1), state("b", code=-9, phase=None)), "b ended with exit code -9 before it was ready"),
        ((state("a", phase="starting"), state("b", code=-9)), "b ended with exit code -9 before the others began"),
        ((state("a", 1), state("b", 1, code=-9)), None),
        ((state("a", 1), state("b", 1, code=-9, phase=None)), None),
        ((state("a", 3, code=0), state("b", 2, phase="starting")), "b cannot go on"),
        ((state("a", 3, code=0), replace(state("b", 2, phase="starting"), silent=True)), None),
        ((state("a", 3, code=0), state("b", phase=None)), None),
        ((state("a", 3, code=0), state("b", 3, code=-9)), None),
    ],
)
def test_dead_ends(given: tuple[DaemonState, ...], reason: str | None) -> None:
    found = dead_end(states(*given))
    assert found == reason if reason is None else (found or "").startswith(reason)


def test_rounds_of_a_growing_file_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rounds = Rounds(path)
    rounds.read()
    first, second = (json.dumps({"round": number, "test": {"accuracy": number / 10}}) + "\n" for number in (1, 2))
    path.write_text(first + second[:9])
    rounds.read()
    assert (rounds.completed, rounds.accuracies) == (1, {1: 0.1})
    with path.open("a") as file:
        file.write(second[9:] + json.dumps({"round": 4, "test": None}) + "\n")
    rounds.read()
    assert (rounds.completed, rounds.accuracies) == (4, {1: 0.1, 2: 0.2})


def test_last_words_are_the_event_or_the_line_of_this_start(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    assert last_words(log) is None
    log.write_text('{"event": "ready"}\n\n')
    assert last_words(log) == "ready"
    assert last_words(log, log.stat().st_size) is None
    log.write_text('{"event": "ready"}\nerror: the port is taken\n')
    assert last_words(log) == "the port is taken"


def test_seconds_add_up_over_starts_and_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "local.json"
    path.write_text('{"seconds": 100}')
    clock = Clock(path)
    clock.stop()
    assert 100 < Clock(path).seconds < 110
    path.write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        Clock(path)


def test_a_closed_terminal_is_a_wish_to_stop_even_if_it_is_told_twice() -> None:
    outside = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with stop_wish() as asked_to_stop:
        assert not asked_to_stop()
        os.kill(os.getpid(), signal.SIGHUP)
        assert asked_to_stop()
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.signal(signal.SIGHUP, outside) == signal.SIG_DFL


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_wish() as asked_to_stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked_to_stop()
    finally:
        signal.signal(signal.SIGHUP, before)


# With real daemons


def holder(site: LocalSite) -> int | None:
    """The process that runs a site's daemon now, None if there is none."""
    try:
        StateLock(site.state).release()
    except NodeError as error:
        return int(str(error).partition("process ")[2].partition(")")[0])
    return None


def test_a_daemon_that_dies_before_the_first_round_stops_the_others(tmp_path: Path, data: FederatedData) -> None:
    sites = local_sites(small(), data, tmp_path)
    settings = small()
    (tmp_path / "config.toml").write_text(tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)))
    prepare(settings, data, sites, tmp_path)
    (sites[1].folder / "keys" / "curve.secret").write_text("broken\n")
    seen: list[Mapping[str, DaemonState]] = []
    with pytest.raises(
        NodeError, match=r"hospital-2 ended with exit code 10 before it was ready; it said .*curve"
    ) as told:
        run_local(settings, tmp_path, data=data, resume=True, watch=seen.append)
    assert str(sites[1].log) in str(told.value)
    assert seen[-1]["hospital-2"].exit_code == 10
    assert [holder(site) for site in sites] == [None, None]


class Command:
    """A real `flop-p2p local` process in a folder ``run``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self, *more: str) -> "subprocess.Popen[str]":
        file = self.folder.parent / "experiment.toml"
        file.write_text(tomli_w.dumps(small(training__rounds=ROUNDS).model_dump(mode="json", exclude_none=True)))
        command = [sys.executable, "-m", "flop_p2p", "local", str(file), "--out", str(self.folder), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return self.process

    def wait_for_rounds(self, count: int) -> None:
        """Wait until the second hospital has completed so many rounds."""
        path, end = self.folder / "sites" / "hospital-2" / "state" / "metrics.jsonl", time.monotonic() + 60
        while not path.exists() or path.read_text().count("\n") < count:
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    made = Command(tmp_path / "run")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.communicate()


def test_ctrl_c_stops_all_and_resume_ends_whole(command: Command, data: FederatedData) -> None:
    process = command.start()
    command.wait_for_rounds(3)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "no daemon runs any more" in errors
    assert f"round {ROUNDS}/{ROUNDS}" not in output
    assert not (command.folder / "summary.json").exists()
    first = json.loads((command.folder / "local.json").read_text())["seconds"]
    lines, told = Lines(ROUNDS), list[str]()
    settings = small(training__rounds=ROUNDS)
    run_local(settings, command.folder, data=data, resume=True, watch=lambda states: told.extend(lines.new(states)))
    rounds = [line.partition(" complete at every hospital")[0] for line in told]
    assert rounds == [f"round {number}/{ROUNDS}" for number in range(1, ROUNDS + 1)]
    summary = json.loads((command.folder / "summary.json").read_text())
    assert {node["completed"] for node in summary["nodes"].values()} == {ROUNDS}
    # a daemon stopped inside a round can no longer send its body of the round before: that round may be missed
    missed = [number for node in summary["nodes"].values() for rounds in node["absences"].values() for number in rounds]
    assert len(missed) <= 2
    assert summary["seconds"]["total"] > first > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process of its parent's death")
def test_no_daemon_outlives_a_killed_command(command: Command, data: FederatedData) -> None:
    process = command.start()
    command.wait_for_rounds(2)
    sites = local_sites(small(), data, command.folder)
    assert all(holder(site) for site in sites)
    process.kill()
    process.communicate()
    end = time.monotonic() + 20
    while any(holder(site) for site in sites) and time.monotonic() < end:
        time.sleep(0.1)
    assert [holder(site) for site in sites] == [None, None]
    assert "asked to stop" in sites[0].log.read_text()  # it left, and was not killed


def test_the_others_finish_without_a_daemon_that_dies_later(command: Command, data: FederatedData) -> None:
    process = command.start("--deadline", "1", "--heartbeat", "0.2", "--lost-after", "0.5")
    command.wait_for_rounds(2)
    sites = local_sites(small(), data, command.folder)
    dead = holder(sites[1])
    assert dead is not None
    os.kill(dead, signal.SIGKILL)
    output, errors = process.communicate(timeout=90)
    assert process.returncode == 14, errors
    assert "hospital-2 ended with exit code -9 after" in output
    assert f"round {ROUNDS}/{ROUNDS} complete at 1 of 2 hospitals" in output
    assert "1 of 2 daemons did not go to the end (hospital-2)" in errors
    assert json.loads((sites[0].state / "summary.json").read_text())["complete"]
