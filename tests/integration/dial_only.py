"""A ring of four in which one site listens nowhere and lives in a network namespace of its own, linked by a cable.

    unshare --map-root-user --net python dial_only.py FOLDER

prints what came of it as JSON.
"""

import json
import subprocess
import sys
from pathlib import Path

import tomli_w
from federation import SMALL, Daemons

from flop_p2p.config import load_experiment, read_toml

HIDDEN = "hospital-3"
HERE, THERE = "10.77.0.1", "10.77.0.2"


def lay_cable() -> subprocess.Popen[bytes]:
    """Make the other namespace; it lives as long as the process that is returned."""
    other = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    while Path(f"/proc/{other.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
        pass
    for command in (
        "ip link set lo up",
        f"ip link add cable type veth peer name cable netns {other.pid}",
        f"ip address add {HERE}/24 dev cable",
        "ip link set cable up",
        f"nsenter --target {other.pid} --net ip address add {THERE}/24 dev cable",
        f"nsenter --target {other.pid} --net ip link set cable up",
    ):
        subprocess.run(command.split(), check=True)
    return other


def hide(federation: Daemons) -> None:
    """Give all others addresses on the cable, and the hidden site none."""
    path = federation.folder / "federation.toml"
    content = read_toml(path)
    for member in content["members"]:
        name = member["name"]
        control, bulk = member.pop("control"), member.pop("bulk")
        if name == HIDDEN:
            federation.change(name, listen=None, bulk_listen=None)
        else:
            member["control"], member["bulk"] = (each.replace("127.0.0.1", HERE) for each in (control, bulk))
            federation.change(name, listen=member["control"], bulk_listen=member["bulk"])
    path.write_text(tomli_w.dumps(content))


def listening(process: int) -> int:
    """How many TCP sockets listen in the network namespace of a process."""
    tables = (Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:] for table in ("tcp", "tcp6"))
    return sum(line.split()[3] == "0A" for table in tables for line in table)


def main(folder: Path) -> None:
    other = lay_cable()
    federation = Daemons(load_experiment(overrides={**SMALL, "training.rounds": 4}), folder)
    hide(federation)
    try:
        federation.start(*(name for name in federation.sites if name != HIDDEN))
        federation.start(HIDDEN, prefix=("nsenter", "--target", str(other.pid), "--net"))
        federation.wait_until(HIDDEN, lambda status: status["completed"] >= 1)
        listens = {name: listening(process.pid) for name, process in federation.processes.items()}
        codes = federation.wait()
    finally:
        federation.end()
        other.kill()
    summaries = {name: federation.summary(name) for name in federation.sites}
    result = {
        "codes": codes,
        "listening": listens,
        "whole": {name: summary["whole"] for name, summary in summaries.items()},
        "received": {name: link["received_bytes"] for name, link in summaries[HIDDEN]["links"].items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
