"""Recovery of labels: exact from the head's gradient, and what is left without it."""

from typing import Any

import numpy as np
import pytest
import torch

from flop_p2p.audit.labels import label_of_single, labels_of_batch, nearest_labels, overlap


def test_the_heads_gradient_tells_every_label(federation: Any) -> None:
    attacked = federation()
    layer, names = attacked.model.output_layer(), attacked.model.names
    assert layer == "head"
    for row in range(attacked.sites):
        for position in attacked.training(row)[:10].tolist():
            gradient = dict(zip(names, attacked.step(row, [position]), strict=True))
            label = int(attacked.samples.labels[position])
            assert label_of_single(gradient, layer) == label
            del gradient["head.bias"]
            assert label_of_single(gradient, layer) == label


def test_counts_of_a_batch_from_its_biases() -> None:
    labels, probabilities = [0, 0, 2, 1, 0], torch.tensor([0.2, 0.3, 0.5])
    gradient = probabilities - torch.tensor([3.0, 1.0, 1.0]) / 5
    assert labels_of_batch(gradient, probabilities, 5) == [3, 1, 1]
    rough = labels_of_batch(gradient, torch.tensor([0.25, 0.25, 0.5]), 5)
    assert sum(rough) == 5
    assert overlap([3, 1, 1], labels) == 1
    assert overlap([0, 5, 0], labels) == pytest.approx(0.2)


def test_the_same_head_tells_labels_without_the_heads_gradient(federation: Any) -> None:
    """Before the first round all sites have the same head, so a private one is known to all."""
    attacked = federation(data__limit_images=None)
    victim = attacked.victim(0)
    own, _ = attacked.batch(attacked.training(victim.attacker)[:8].tolist())
    positions = attacked.training(0)[:20].tolist()
    bodies = [attacked.step(0, [position])[: len(attacked.model.body)] for position in positions]
    found = nearest_labels(attacked.model, attacked.before(victim.attacker), own, 10, None, bodies)
    labels = attacked.samples.labels[positions].numpy()
    assert np.mean(np.asarray(found) == labels) > 0.8
