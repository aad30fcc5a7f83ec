"""Real daemons reach the bodies that the simulator reaches; a head reaches nobody."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from federation import run_nodes
from safetensors.torch import load_file

from flop_p2p.config import load_experiment, load_federation, load_site
from flop_p2p.learning import Partway
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


class OtherHead(SiteModel):
    """A model whose head is changed after training, before anything is published."""

    def train(self, *arguments: Any) -> float | Partway:
        result = super().train(*arguments)
        self.head += torch.arange(len(self.head))
        return result


def left(federation: Any, name: str) -> list[tuple[str, str, int, str | None]]:
    """What left a site, by its egress log: the plaintext's hash for bodies; greetings hold fresh keys each time."""
    lines = [json.loads(text) for text in (federation.sites[name].state / "egress.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["kind"] not in ("heartbeat", "credit")]
    return sorted(
        (line["receiver"], line["kind"], line["bytes"], line["sha256"] if line["kind"] == "body" else None)
        for line in kept
    )


def test_changing_only_a_head_after_training_changes_nothing_that_leaves(
    daemons: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, models = [], []
    for model in (SiteModel, OtherHead):
        monkeypatch.setattr("flop_p2p.node.daemon.SiteModel", model)
        federation = daemons({"data.sites": 2, "training.rounds": 1})
        asyncio.run(run_nodes(federation.sites.values()))
        sent.append([line for line in left(federation, "hospital-1") if line[1] == "body"])
        models.append(load_file(federation.sites["hospital-1"].state / "model.safetensors"))
    assert len(sent[0]) == 1
    assert sent[0] == sent[1]
    assert not torch.equal(models[0]["head.weight"], models[1]["head.weight"])
    assert torch.equal(models[0]["body.0.weight"], models[1]["body.0.weight"])


def test_a_published_body_is_the_body_and_not_the_head(daemons: Callable[..., Any]) -> None:
    federation = daemons({"data.sites": 2})
    site = load_site(federation.sites["hospital-1"].settings)
    model = SiteModel(load_federation(site.federation), site)
    before = model.publish(0)
    model.head += 1
    assert model.publish(0).sha256 == before.sha256 == hashlib.sha256(bytes(before.body.data)).digest()
    model.body[7] += 1
    assert model.publish(0).sha256 != before.sha256  # the comparison can fail
