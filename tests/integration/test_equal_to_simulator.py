"""Real daemons reach the bodies that the simulator reaches; a head reaches nobody."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flop_p2p.config import load_experiment, load_federation, load_site
from flop_p2p.local import run_local
from flop_p2p.node.worker import SiteModel
from flop_p2p.simulation import run_simulation

SETTINGS = {
    "data.source": "digits",
    "data.sites": 4,
    "data.partition": "dirichlet:0.5",
    "data.limit_images": 800,
    "model.name": "small-cnn",
    "training.rounds": 5,
    "seed": 3,
}


@pytest.mark.parametrize(
    "overrides",
    [
        {"topology.name": "ring"},
        {"method": "flop", "topology.weighting": "samples", "training.rounds": 3, "gossip.bulk": "curve"},
    ],
    ids=["gossip on a ring, sealed", "a server, inside CURVE"],
)
def test_daemons_reach_the_bodies_and_heads_of_the_simulator(tmp_path: Path, overrides: dict[str, Any]) -> None:
    settings = load_experiment(overrides={**SETTINGS, **overrides})
    summary = run_local(settings, tmp_path / "local")
    simulated = run_simulation(settings, tmp_path / "simulated")
    for path in sorted((tmp_path / "simulated" / "models").iterdir()):
        expected = load_file(path)
        found = load_file(tmp_path / "local" / "sites" / path.stem / "state" / "model.safetensors")
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert (found[name] - tensor).norm() <= 1e-5 * tensor.norm(), (path.stem, name)
            assert settings.method == "flop" or torch.equal(found[name], tensor)  # a server sums in another order
    assert summary["whole"]
    assert set(simulated) <= set(summary)
    assert summary["metrics"]["accuracy"]["per_site"] == pytest.approx(simulated["metrics"]["accuracy"]["per_site"])
    assert summary["pooled_test"]["accuracy"]["mean"] == pytest.approx(simulated["pooled_test"]["accuracy"]["mean"])
    assert summary["bytes"]["total"] > simulated["bytes"]["total"]  # headers, greetings and heartbeats are counted
    assert summary["bytes"]["total"] < 2 * simulated["bytes"]["total"]
    bodies = [
        json.loads(text)
        for text in (tmp_path / "local/sites/hospital-1/state/egress.jsonl").read_text().splitlines()
        if '"kind":"body"' in text
    ]
    assert len(bodies) == settings.training.rounds * (1 if settings.method == "flop" else 2)


def test_changing_only_a_head_changes_no_outgoing_byte(daemons: Callable[..., Any]) -> None:
    federation = daemons({"data.sites": 2})
    site = load_site(federation.sites["hospital-1"].settings)
    model = SiteModel(load_federation(site.federation), site)
    model.train(0, lambda: False)
    before = model.publish(0)
    sent = bytes(before.body.data)
    model.head += torch.arange(len(model.head))
    after = model.publish(0)
    assert bytes(after.body.data) == sent
    assert after.sha256 == before.sha256 == hashlib.sha256(sent).digest()
    model.body[7] += 1
    assert bytes(model.publish(0).body.data) != sent  # the comparison can fail
