"""Where the output goes: into a pipe that is closed, onto a full disk, into a log of JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from flop_p2p.identity.keys import generate

COMMAND = (sys.executable, "-m", "flop_p2p")
SHOW = (*COMMAND, "topology", "show", "ring", "--sites", "6")


@pytest.mark.parametrize("command", [SHOW, (*COMMAND, "--version")])
def test_a_pipe_that_is_closed_ends_the_command_quietly(command: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("command", [SHOW, (*COMMAND, "--version")])
def test_a_full_disk_is_one_line(command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    assert ended.stderr == b"error: standard output: cannot be used (No space left on device)\n"


def test_the_exit_code_stays_where_the_error_cannot_be_told() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run((*COMMAND, "federation", "check", "absent.toml"), stderr=full, check=False)
    assert ended.returncode == 3


@pytest.mark.parametrize("kind", ["json", "human"])
def test_the_last_words_of_a_node_are_in_the_format_of_its_log(tmp_path: Path, kind: str) -> None:
    generate(tmp_path / "keys", "north")
    site = tmp_path / "site.toml"
    site.write_text(tomli_w.dumps({"name": "north"}))
    command = (*COMMAND, "node", str(site), "--log-format", kind, "--role", "site")
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    if kind == "json":
        last = json.loads(line)
        assert (last["level"], last["site"], last["exit_code"]) == ("critical", "north", 3)
        line = "error: " + last["event"]
    assert line.startswith("error: ")
    assert "federation.toml: cannot read this file" in line
