"""Nodes that must not take part: each is refused, the reason is logged once, and the others' rounds go on."""

import os
import socket
from collections.abc import Callable
from typing import Any

import tomli_w

from flop_p2p.config import load_federation, read_toml
from flop_p2p.identity.keys import generate


def test_strangers_are_refused_and_the_rounds_of_the_others_go_on(daemons: Callable[..., Any]) -> None:
    federation = daemons(
        {
            "topology.name": "full",
            "training.rounds": 6,
            "gossip.start_timeout": 12.0,
            "gossip.deadline": 3.0,
        }
    )
    members, other_settings, unknown_key = ("hospital-2", "hospital-3"), "hospital-4", "hospital-1"
    common = read_toml(federation.folder / "federation.toml")
    changed = {**common, "training": {**common["training"], "lr": 0.021}}
    path = federation.folder / "other.toml"
    path.write_text(tomli_w.dumps(changed))
    federation.change(other_settings, federation="../../other.toml")
    keys = generate(federation.sites[unknown_key].folder / "own-keys", unknown_key)
    entries = [
        {**each, "curve_key": keys.curve_key, "signing_key": keys.signing_key} if each["name"] == unknown_key else each
        for each in common["members"]
    ]
    (federation.folder / "forged.toml").write_text(tomli_w.dumps({**common, "members": entries}))
    federation.change(unknown_key, federation="../../forged.toml", keys="own-keys")
    federation.start()
    federation.wait_until("hospital-2", lambda status: status["neighbours"]["hospital-3"]["state"] == "connected")
    for _ in range(20):
        _send_random_bytes(federation)
    assert federation.wait(*members) == dict.fromkeys(members, 0)
    for name in members:
        summary = federation.summary(name)
        assert summary["completed"] == 6
        assert set(summary["absences"]) == {other_settings, unknown_key}
        about_settings = [text for text in federation.events(name) if "training.lr" in text]
        assert len(about_settings) == 1
        assert "0.02" in about_settings[0]
        assert "0.021" in about_settings[0]
        assert len([text for text in federation.events(name) if keys.curve_key in text]) == 1
    assert any("training.lr" in text for text in federation.events(other_settings))
    assert federation.status(other_settings)["completed"] == 0


def _send_random_bytes(federation: Any) -> None:
    member = load_federation(federation.folder / "federation.toml").member("hospital-2")
    for endpoint in (member.control, member.bulk):
        host, port = endpoint.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(os.urandom(3000))
