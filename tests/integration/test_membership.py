"""A running federation changes: a fifth hospital joins, a key is rotated, a member leaves; nobody loses anything."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

from flop_p2p.cli import command_line
from flop_p2p.config import load_site
from flop_p2p.local.prepare import LocalSite, free_ports
from flop_p2p.node.daemon import Node

ROUNDS = 40


def command(*arguments: object) -> None:
    """Run a `flop-p2p` command."""
    command_line()([str(argument) for argument in arguments], prog_name="flop-p2p", standalone_mode=False)


def sign_and_adopt(federation: Any, before: Path, after: Path, signers: list[Path], sites: list[str]) -> None:
    """All members sign a revision, then each site adopts it."""
    for keys in signers:
        command("federation", "sign", after, "--keys", keys, "--before", before)
    for name in sites:
        command("federation", "adopt", federation.sites[name].settings, after)


def new_hospital(federation: Any, name: str, revision: Path) -> Path:
    """The folder of a hospital that joins, with keys and data but without federation file; its public.toml."""
    folder = federation.folder / "sites" / name
    command("keygen", folder / "keys", "--name", name)
    federation.sites[name] = LocalSite(name, folder)
    content = {
        "name": name,
        "federation": str(revision),
        "data": {"source": "digits", "limit_images": 200},
    }
    federation.sites[name].settings.write_text(tomli_w.dumps(content))
    return folder / "keys" / "public.toml"


def test_a_fifth_hospital_joins_and_a_key_is_rotated_at_no_cost(daemons: Callable[..., Any]) -> None:
    federation = daemons({"training.rounds": ROUNDS, "training.local_steps": 60, "gossip.deadline": 4.0})
    old = list(federation.sites)
    first, second, third = (federation.folder / name for name in ("federation.toml", "second.toml", "third.toml"))
    federation.start(prefix=("nice",))
    public = new_hospital(federation, "hospital-5", second)
    control, bulk = free_ports(2)
    joins = federation.wait_until("hospital-1", lambda status: status["completed"] >= 1)["round"] + 12
    address = f"tcp://127.0.0.1:{control},tcp://127.0.0.1:{bulk}"
    command("federation", "add-member", first, f"{public}@{address}", "--from-round", joins, "--out", second)
    keys = [federation.sites[name].folder / "keys" for name in [*old, "hospital-5"]]
    sign_and_adopt(federation, first, second, keys, old)
    federation.start("hospital-5", options=("--adopt", "1"))

    new_keys = federation.sites["hospital-2"].folder / "new-keys"
    command("keygen", new_keys, "--name", "hospital-2")
    rotates = joins + 4
    rotated = ("--from-round", rotates, "--out", third)
    command("federation", "rotate-key", second, new_keys / "public.toml", *rotated)
    sign_and_adopt(federation, second, third, [*keys, new_keys], [*old, "hospital-5"])
    before = federation.wait_until("hospital-2", lambda status: status["round"] >= rotates)["completed"]
    federation.send("hospital-2", signal.SIGTERM)
    assert federation.wait("hospital-2") == {"hospital-2": 0}
    federation.change("hospital-2", keys="new-keys")
    federation.start("hospital-2")

    assert set(federation.wait(seconds=150).values()) == {0}
    for name in federation.sites:
        summary = federation.summary(name)
        assert summary["completed"] == ROUNDS
        assert summary["revision"] == 3
        assert federation.lines(name)[-1]["absent"] == []  # all five took part in the last round
    assert "hospital-5" in federation.summary("hospital-1")["neighbours"]
    assert "took over the body of" in federation.log("hospital-5")
    assert federation.lines("hospital-5")[0]["round"] >= joins - 1
    kept = [line["round"] for line in federation.lines("hospital-2")]
    assert kept[:before] == list(range(1, before + 1))  # what it had learnt before was not lost
    assert f"connected to hospital-2, which is in round {before + 1}" in federation.log("hospital-3")


def test_a_removed_member_stops_and_the_others_close_the_ring(daemons: Callable[..., Any]) -> None:
    federation = daemons({"training.rounds": 40, "training.local_steps": 40})
    federation.start(prefix=("nice",))
    first, second = federation.folder / "federation.toml", federation.folder / "second.toml"
    leaves = federation.wait_until("hospital-1", lambda status: status["completed"] >= 1)["round"] + 20
    command("federation", "remove-member", first, "hospital-3", "--from-round", leaves, "--out", second)
    staying = ["hospital-1", "hospital-2", "hospital-4"]
    sign_and_adopt(federation, first, second, [federation.sites[name].folder / "keys" for name in staying], staying)
    command("federation", "adopt", federation.sites["hospital-3"].settings, second)
    assert set(federation.wait().values()) == {0}
    assert federation.summary("hospital-3")["completed"] == leaves - 1
    for name in staying:
        summary = federation.summary(name)
        assert summary["completed"] == 40
        assert summary["whole"]
        assert summary["neighbours"] == [other for other in staying if other != name]


def test_a_member_whose_removal_is_adopted_can_start_until_then(daemons: Callable[..., Any]) -> None:
    federation = daemons({"data.sites": 3})
    first, second = federation.folder / "federation.toml", federation.folder / "second.toml"
    command("federation", "remove-member", first, "hospital-3", "--from-round", 6, "--out", second)
    staying = ["hospital-1", "hospital-2"]
    keys = [federation.sites[name].folder / "keys" for name in staying]
    sign_and_adopt(federation, first, second, keys, [*staying, "hospital-3"])
    node = Node(load_site(federation.sites["hospital-3"].settings))
    node.lock.release()
    assert node.membership.leaves_at() == 5
    assert node.snapshot()["revision"] == 1
    assert [peer.name for peer in node.membership.peers(0)] == staying
    assert node.membership.peers(5) == []


def test_a_wrong_file_among_the_revisions_ends_no_running_node(daemons: Callable[..., Any]) -> None:
    federation = daemons({"data.sites": 2, "training.rounds": 2000, "training.local_steps": 5})
    federation.start()
    federation.wait_until("hospital-1", lambda status: status["completed"] >= 1)
    revisions = federation.sites["hospital-1"].state / "revisions"
    revisions.mkdir()
    (revisions / "2.toml").write_text("revision = 2\n")
    told = federation.wait_until("hospital-1", lambda _: "is not taken up" in federation.log("hospital-1"))
    federation.wait_until("hospital-1", lambda status: status["completed"] > told["completed"] + 5)
    assert sum("is not taken up" in text for text in federation.events("hospital-1")) == 1
