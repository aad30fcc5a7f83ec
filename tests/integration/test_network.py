"""What crosses the network, and from where it may be reached, in network namespaces that the tests make themselves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

OWN_NETWORK = ("unshare", "--map-root-user", "--net")


def run_in_own_network(script: str, *arguments: object) -> Any:
    """What a script of this folder prints last, run in a network namespace of its own."""
    command = [*OWN_NETWORK, sys.executable, str(Path(__file__).parent / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def may_make_networks() -> bool:
    """Whether this machine lets us make network namespaces."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run([*OWN_NETWORK, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not may_make_networks(), reason="no network namespaces may be made on this machine")


def test_a_capture_holds_no_part_of_a_body_and_no_name_of_a_layer(tmp_path: Path) -> None:
    found = run_in_own_network("capture.py", tmp_path / "run", "sealed")
    sent = sum(found["body_bytes"].values()) * 2 * 2  # two neighbours, two rounds
    assert found["dropped"] == 0
    assert found["bytes"] > sent > 0
    assert found["runs"] == dict.fromkeys(found["body_bytes"], 0)
    assert found["names"] == []


def test_the_search_finds_bodies_and_names_where_nothing_is_sealed(tmp_path: Path) -> None:
    found = run_in_own_network("capture.py", tmp_path / "run", "clear")
    assert all(runs > 0.9 * found["body_bytes"][site] for site, runs in found["runs"].items())
    assert "head.weight" in found["names"]
    assert "body.0.weight" in found["names"]


def test_a_site_that_only_dials_out_takes_part_where_nothing_can_connect_to_it(tmp_path: Path) -> None:
    found = run_in_own_network("dial_only.py", tmp_path / "run")
    assert set(found["codes"].values()) == {0}
    assert found["listening"].pop("hospital-3") == 0
    assert all(listening >= 2 for listening in found["listening"].values())
    assert found["whole"] == dict.fromkeys(found["whole"], True)
    assert all(received > 4 * 50_000 for received in found["received"].values())  # four bodies from each neighbour
