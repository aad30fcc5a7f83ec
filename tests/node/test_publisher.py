"""What a site tells and how it moves: to the bit what the simulator does with the row of that site."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.node.checkpoint import Checkpoints, Progress
from flop_p2p.node.publisher import Publisher
from flop_p2p.transport.base import Body, OutgoingBody
from flop_p2p.wire.encodings import decode

CHANGES = GossipSettings(compression="top-k", top_k=0.1)
PARAMETERS = 500

never = lambda: False  # noqa: E731


def body(seed: int) -> Body:
    return np.random.default_rng(seed).normal(size=PARAMETERS).astype(np.float32)


def received(outgoing: OutgoingBody, parameters: int, held: Body | None, held_round: int | None) -> Body:
    """What a neighbour makes of it that holds the body of ``held_round``."""
    payload = outgoing.payload(held_round)
    assert payload.sha256 == hashlib.sha256(payload.data.tobytes()).digest()
    if payload.encoding == "float32":
        return payload.data.view(np.float32)
    return decode(payload.encoding, payload.data, parameters, 0.01, held)


@pytest.mark.parametrize("compression", ["none", "bfloat16", "int8", "top-k"])
def test_three_rounds_are_those_of_a_simulation(hospitals: Callable[..., Any], compression: str) -> None:
    three = hospitals(gossip__compression=compression, topology__name="full")
    simulation, models = three.simulation(), three.models()
    held: dict[str, tuple[Body, int]] = {}
    for round_index in range(3):
        simulation.run_round(never)
        simulation.round_lines()
        for model in models:
            model.train(round_index, never)
            known = held.get(model.name, (None, None))
            held[model.name] = received(model.publish(round_index), len(model.body), *known), round_index
        for model in models:
            model.mix(model.name, 1 / 3, [(name, 1 / 3, p) for name, (p, _) in held.items() if name != model.name])
    for model, expected in zip(models, simulation.population.bodies, strict=True):
        assert np.array_equal(model.body.numpy(), expected.numpy())
    assert not np.array_equal(models[0].body.numpy(), models[1].body.numpy()) or compression == "none"


def test_asked_once_more_for_a_round_it_tells_the_same() -> None:
    for gossip in (GossipSettings(), GossipSettings(compression="int8"), CHANGES):
        publisher = Publisher(gossip, 0, "a")
        for round_index in range(3):
            first, again = (
                publisher.publish(body(round_index), round_index),
                publisher.publish(body(round_index), round_index),
            )
            assert again.payload(None).sha256 == first.payload(None).sha256
        assert publisher.publish(body(3), 3).payload(None).sha256 != first.payload(None).sha256


def test_with_its_tensors_another_goes_on_and_without_them_begins_with_a_whole_body() -> None:
    publisher = Publisher(CHANGES, 0, "a")
    assert publisher.tensors() == {}
    for round_index in range(2):
        publisher.publish(body(round_index), round_index)
    restored, anew = Publisher(CHANGES, 0, "a"), Publisher(CHANGES, 0, "a")
    restored.restore(publisher.tensors())
    anew.restore({})
    expected, found = publisher.publish(body(2), 2), restored.publish(body(2), 2)
    assert expected.changes is not None
    assert expected.changes.base == 1
    assert found.changes == expected.changes
    assert found.sha256 == expected.sha256
    assert anew.publish(body(2), 2).changes is None


def test_a_checkpoint_holds_what_was_told(hospitals: Callable[..., Any], tmp_path: Any) -> None:
    three = hospitals(gossip__compression="top-k")
    before, after = three.model(), three.model()
    for round_index in range(2):
        before.train(round_index, never)
        before.publish(round_index)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(before, Progress(1, "published", "", ""))
    assert before.checkpoint_bytes > three.model(gossip=GossipSettings()).checkpoint_bytes
    checkpoints.load(after)
    assert after.publish(1).sha256 == before.publish(1).sha256
    for model in (before, after):
        model.train(2, never)
    assert after.publish(2).changes == before.publish(2).changes
    assert after.publish(2).sha256 == before.publish(2).sha256


def test_after_taking_over_the_neighbours_bodies_a_site_begins_with_a_whole_one(hospitals: Callable[..., Any]) -> None:
    model = hospitals(gossip__compression="top-k").model()
    model.publish(0)
    other = np.ones(model.split.body.parameters, np.float32)
    model.take_over([("hospital-2", 0.5, other), ("hospital-3", 0.5, 3 * other)])
    assert np.array_equal(model.body.numpy(), 2 * other)
    outgoing = model.publish(5)
    assert outgoing.changes is None
    assert np.array_equal(outgoing.body, 2 * other)
