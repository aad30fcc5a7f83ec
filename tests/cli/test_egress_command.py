"""`flop-p2p egress verify` and `flop-p2p status`, as users meet them."""

import asyncio
import hashlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flop_p2p import cli
from flop_p2p.cli import status as status_command
from flop_p2p.errors import ConfigError, EgressError, NodeError
from flop_p2p.node.egress import EgressLog
from flop_p2p.node.status import SOCKET_FILE, StatusServer

SCHEMA = {"body": [["conv.weight", [8], "float32"]], "head": ["fc.weight", "fc.bias"], "sizes": [32]}
LINK = {"reason": "", "latency": None, "last_contact": None, "clock_skew": None, "dropped_frames": 0, "absences": 0}
SNAPSHOT: dict[str, Any] = {
    "name": "north",
    "federation": "lung [bold]",
    "federation_id": "ab" * 32,
    "revision": 2,
    "role": "site",
    "round": 3,
    "completed": 2,
    "rounds": 10,
    "phase": "collecting",
    "waiting_for": ["west"],
    "train_loss": 0.25,
    "accuracy": 0.875,
    "balanced_accuracy": None,
    "validation_accuracy": None,
    "bytes": {"sent": 12_345_678, "received": 0},
    "seconds": {"training": 1.5, "mixing": 0.25},
    "absences": 1,
    "catch_ups": 0,
    "privacy": {"epsilon": 3.5, "budget": 8.0, "delta": 1e-5, "unit": "patient", "stopped": 4},
    "masking": "pairwise",
    "masked_skips": 3,
    "started": 1.8e9,
    "finished": False,
    "neighbours": {
        "south": LINK
        | {"state": "connected", "round": 3, "latency": 0.0021, "sent_bytes": 9, "received_bytes": 2_500_000},
        "west": LINK | {"state": "refused", "reason": "other [key]", "round": 0, "sent_bytes": 0, "received_bytes": 0},
    },
}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `flop-p2p ...`; returns exit code, output and errors."""
    monkeypatch.setenv("COLUMNS", "120")

    def run_command(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flop-p2p", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return run_command


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The site.toml of north, which has sent two bodies to south and one to west."""
    state = tmp_path / "north" / "state"
    state.mkdir(parents=True)
    (state / "schema.json").write_text(json.dumps(SCHEMA))
    north, south = EgressLog(state, "north"), EgressLog(tmp_path / "south", "south")
    for number, receiver in enumerate(("south", "west", "south")):
        chain = north.record(receiver, "body", number, 32, hashlib.sha256(b"body").digest())
        if receiver == "south":
            south.receipt("north", "body", number, chain)
    north.close()
    south.close()
    path = tmp_path / "north" / "site.toml"
    path.write_text('name = "north"\n[data]\nsource = "digits"\n')
    return path


# Egress


def test_verify_prints_a_line_a_check_and_what_left(run: Run, site: Path) -> None:
    code, out, _ = run("egress", "verify", site, "--peer", site.parents[1] / "south")
    assert code == 0
    checks = [line.split()[1] for line in out.splitlines() if line.startswith("ok ")]
    assert checks == ["chain", "schema", "anchor", "receipts"]
    assert "3 bodies, each the same 1 tensors in 32 bytes; kept back: fc.weight, fc.bias" in out
    assert "2 receipts, each for a line of the log" in out
    rows = {cells[0]: cells[1:4] for line in out.splitlines() if len(cells := line.split()) == 8}
    assert rows["south"] == ["2", "2", "64"]
    assert rows["west"] == ["1", "1", "32"]


def test_verify_takes_a_state_directory_and_several_peers(run: Run, site: Path) -> None:
    receipts = site.parents[1] / "south" / "receipts.jsonl"
    code, out, _ = run("egress", "verify", site.parent / "state", "--peer", receipts, "--peer", receipts.parent)
    assert code == 0
    assert out.count("ok receipts") == 2


def test_verify_names_the_false_line_and_exits_15(run: Run, site: Path) -> None:
    log = site.parent / "state" / "egress.jsonl"
    log.write_text(log.read_text().replace('"round":1', '"round":7'))
    code, out, errors = run("egress", "verify", site)
    assert code == EgressError.exit_code == 15
    assert out == ""
    assert f"{log}, line 2: edited; the next holds the hash of another" in errors
    assert len(errors.splitlines()) == 1


def test_verify_knows_whose_log_it_must_be(run: Run, site: Path) -> None:
    site.write_text(site.read_text().replace("north", "east"))
    code, _, errors = run("egress", "verify", site)
    assert code == EgressError.exit_code
    assert "a message of north in the log of east" in errors


@pytest.mark.parametrize("command", [("egress", "verify"), ("status",)])
def test_a_target_that_is_neither_is_named(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    code, _, errors = run(*command, tmp_path / "absent.toml")
    assert code == ConfigError.exit_code
    assert "absent.toml: cannot read this file" in errors


# Status


def while_answering(folder: Path, work: Callable[[], Any]) -> Any:
    """What ``work`` returns while a node on ``folder`` answers."""

    async def answer() -> Any:
        server = StatusServer(folder, lambda: SNAPSHOT)
        await server.start()
        try:
            return await asyncio.to_thread(work)
        finally:
            await server.close()

    return asyncio.run(answer())


def test_status_shows_the_node_and_its_neighbours(run: Run, site: Path) -> None:
    code, out, _ = while_answering(site.parent / "state", lambda: run("status", site))
    assert code == 0
    words = " ".join(out.split())
    assert "north in lung [bold], revision 2" in words
    assert "round 3 of 10, collecting" in words
    assert "waiting for west" in words
    assert "accuracy 0.8750" in words
    assert "sent, received 12.35 MB, 0.00 MB" in words
    assert "epsilon 3.500 of 8 at delta 1e-05, a patient; only receives since round 4" in words
    assert "south connected 3 – 2.1 ms 0.00 MB 2.50 MB 0 0" in words
    assert "west refused: other [key] 0 – – 0.00 MB 0.00 MB 0 0" in words


def test_status_as_json_is_the_answer(run: Run, site: Path) -> None:
    state = site.parent / "state"
    code, out, _ = while_answering(state, lambda: run("status", state, "--json"))
    assert code == 0
    assert json.loads(out) == SNAPSHOT


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_watch_asks_again_until_ctrl_c(
    run: Run, site: Path, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    asked = []
    monkeypatch.setattr("flop_p2p.node.status.ask", lambda folder: asked.append(folder) or SNAPSHOT)
    monkeypatch.setattr(status_command.time, "sleep", wait)
    code, out, _ = run("status", site, "--watch", *flags)
    assert code == 0
    assert len(asked) == 3
    assert out.count('"name": "north"') == (3 if flags else 0)
    assert ("waiting for" in out) == (not flags)


@pytest.mark.parametrize(("complete", "exit_code"), [(True, 0), (False, NodeError.exit_code)])
def test_watch_ends_well_where_the_node_has_done_all_rounds(
    run: Run, site: Path, monkeypatch: pytest.MonkeyPatch, complete: bool, exit_code: int
) -> None:
    answers = [SNAPSHOT]
    waits = []

    def ask(folder: Path) -> dict[str, Any]:
        if answers:
            return answers.pop()
        raise NodeError("no node runs")

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:  # the node says goodbye first
            (site.parent / "state" / "summary.json").write_text(json.dumps({"complete": complete}))

    monkeypatch.setattr("flop_p2p.node.status.ask", ask)
    monkeypatch.setattr(status_command.time, "sleep", wait)
    code, _, errors = run("status", site, "--watch")
    assert code == exit_code
    assert ("no node runs" in errors) == (not complete)


def test_status_fits_80_columns(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = {"round": 1200, "latency": 0.9999, "last_contact": time.time() - 99, "absences": 999, "dropped_frames": 999}
    full = LINK | busy | {"state": "connected", "sent_bytes": 999_990_000, "received_bytes": 99_990_000_000}
    Console(width=80).print(status_command.status_page(SNAPSHOT | {"neighbours": {"hospital-1": full}}))
    lines = capsys.readouterr().out.splitlines()
    (head,) = (line for line in lines if line.startswith("neighbour "))
    assert head.split() == ["neighbour", "state", "round", "heard", "delay", "sent", "received", "miss", "drop"]
    (row,) = (line for line in lines if line.startswith("hospital-1 "))
    assert "connected" in row
    assert "999.99 MB" in row
    assert "99.99 GB" in row


def test_status_without_a_node_is_one_line(run: Run, site: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(site.parent / "state" / SOCKET_FILE))
    for flags in ((), ("--watch",)):
        code, _, errors = run("status", site, *flags)
        assert code == NodeError.exit_code
        assert "no node runs on this state directory; start it with flop-p2p node" in errors
        assert len(errors.splitlines()) == 1


def test_status_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from flop_p2p.cli import main\n"
        f"sys.argv = ['flop-p2p', 'status', {str(tmp_path)!r}]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_last_contact_is_told_in_seconds(run: Run, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    south = SNAPSHOT["neighbours"]["south"] | {"last_contact": time.time() - 60}
    snapshot = SNAPSHOT | {"neighbours": {"south": south}}
    monkeypatch.setattr("flop_p2p.node.status.ask", lambda folder: snapshot)
    _, out, _ = run("status", site)
    assert " 60." in out
