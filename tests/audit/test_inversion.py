"""Inversion of gradients: of known ones, with and without the head, masked and under noise."""

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from flop_p2p.audit.exposures import Exposure, Noise, of_message, of_one_step
from flop_p2p.audit.federation import Federation
from flop_p2p.audit.gradients import GradientModel, cosine_distance
from flop_p2p.audit.inversion import invert, total_variation
from flop_p2p.audit.quality import psnr
from flop_p2p.config import ModelSettings
from flop_p2p.errors import ConfigError
from flop_p2p.learning import build_blueprint

NOISE = Noise(1.0, 1.0)


def one_step(federation: Federation, row: int = 0, images: int = 1, noise: Noise = NOISE) -> dict[str, Exposure]:
    victim = federation.victim(row)
    batches = [federation.training(sender)[:images].tolist() for sender, _ in victim.senders]
    others = federation.training(victim.attacker)[:2].tolist()
    return {exposure.name: exposure for exposure in of_one_step(federation, victim, batches, noise, others)}


def quality(federation: Federation, exposure: Exposure, settings: Any) -> float:
    """PSNR of the first reconstruction in decibels."""
    samples = federation.samples
    if federation.pixels is None:
        pytest.fail("no images")
    shape, outputs = samples.sample_shape, samples.outputs
    result = invert(federation.model, exposure.problem, shape, outputs, federation.pixels, settings.audit, 1)
    unit = federation.pixels.unit
    assert unit(result.images).min() >= -1e-5
    assert unit(result.images).max() <= 1 + 1e-5
    original, _ = federation.batch(exposure.originals)
    return float(psnr((unit(result.images)[0] - unit(original)[0]).square().mean()))


def test_the_gradient_is_that_of_backward(federation: Any) -> None:
    attacked = federation()
    inputs, labels = attacked.batch(attacked.training(1)[:5].tolist())
    model = copy.deepcopy(attacked._simulation.work.model(1))
    F.cross_entropy(model(inputs), labels).backward()
    expected = [tensor.grad for _, tensor in model.named_parameters()]
    found = attacked.step(1, attacked.training(1)[:5].tolist())
    assert attacked.model.names == tuple(name for name, _ in model.named_parameters())
    torch.testing.assert_close(found, expected)


def test_cosine_distance() -> None:
    gradient = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
    opposite = [-2 * tensor for tensor in gradient]
    nothing = [torch.zeros_like(tensor) for tensor in gradient]
    distances = [float(cosine_distance(gradient, other)) for other in (gradient, opposite, nothing)]
    assert distances == pytest.approx([0, 2, 1], abs=1e-6)


def test_total_variation_of_a_step() -> None:
    image = torch.zeros(1, 1, 4, 4)
    image[..., 2:] = 1  # one edge among three places across, none down
    assert float(total_variation(image)) == pytest.approx(1 / 3)


def test_full_sharing_gives_the_image_away_and_so_does_the_body_alone(federation: Any, audited: Any) -> None:
    attacked, settings = federation(), audited(audit__inversion_iterations=150)
    exposures = one_step(attacked)
    found = {name: quality(attacked, exposure, settings) for name, exposure in exposures.items()}
    assert found["full sharing"] > 25
    assert found["body, known head"] > 25
    assert found["body, dummy head"] > 20  # the private head does not help
    assert found["body, surrogate head"] > 20
    assert found["body, known head, noise"] < 15


def test_a_guessed_start_is_told_apart(federation: Any) -> None:
    attacked = federation(training__rounds=4)
    names = {0: {exposure.name for exposure in of_message(attacked, attacked.victim(0), 2)}}
    assert list(attacked.advance(2)) == [1, 2]
    names[2] = {exposure.name for exposure in of_message(attacked, attacked.victim(0), 2)}
    assert names[2] - names[0] == {"body, known head, start unknown"}  # at first all begin from the same
    assert {"full sharing", "body, known head", "body, dummy head", "masked, k = 2"} == names[0]


def test_a_message_of_one_step_is_its_gradient(federation: Any) -> None:
    attacked = federation(training__local_steps=1, training__batch_size=4)
    (message, *_) = of_message(attacked, attacked.victim(2), 4)
    (batch,) = attacked._simulation.work.learners[2].batches(0)
    step = attacked.step(2, batch.tolist())
    torch.testing.assert_close(message.problem.observed, [0.05 * tensor for tensor in step], rtol=1e-3, atol=1e-6)


def test_looking_at_messages_changes_nothing(federation: Any) -> None:
    plain, attacked = federation(), federation()
    of_message(attacked, attacked.victim(1), 2)
    for one in (plain, attacked):
        list(one.advance(1))
    for name, tensor in plain.before(1).items():
        assert torch.equal(tensor, attacked.before(1)[name])


def test_a_masked_sum_is_all_that_is_seen(federation: Any) -> None:
    attacked = federation()
    victim = attacked.victim(0)
    masked = one_step(attacked)["masked, k = 2"].problem
    steps = [attacked.step(row, attacked.training(row)[:1].tolist()) for row, _ in victim.senders]
    weights = [weight for _, weight in victim.senders]
    assert weights == pytest.approx([1 / 3, 1 / 3])
    for place, tensor in enumerate(masked.observed):
        torch.testing.assert_close(tensor, sum(w * step[place] for w, step in zip(weights, steps, strict=True)))
    assert len(masked.observed) == len(attacked.model.body)


def test_two_hospitals_mask_nothing(federation: Any) -> None:
    attacked = federation(data__sites=2)
    assert not [name for name in one_step(attacked) if name.startswith("masked")]


def test_noise_clips_every_image_first(federation: Any) -> None:
    attacked = federation()
    observed = one_step(attacked, images=3, noise=Noise(1e-9, 1e-3))["body, known head, noise"].problem.observed
    positions = attacked.training(0)[:3].tolist()
    expected = [torch.zeros_like(tensor) for tensor in observed]
    for position in positions:
        gradient = attacked.step(0, [position])
        norm = torch.cat([tensor.flatten() for tensor in gradient]).norm()  # body and head together
        for total, tensor in zip(expected, gradient, strict=False):
            total += 1e-3 / norm * tensor
    torch.testing.assert_close(observed, expected, rtol=1e-3, atol=1e-9)


def test_the_attacker_is_the_receiver_that_receives_the_fewest(federation: Any) -> None:
    victim = federation(topology__name="star").victim(0)
    assert len(victim.senders) == 1 or victim.attacker != 0
    assert federation(topology__name="full").victim(1).senders[0] == (1, pytest.approx(0.25))
    server = federation(method="flop").victim(1)
    assert (server.attacker, server.senders) == (2, ((1, 1.0),))


def test_batch_norm_is_attacked_with_the_statistics_of_the_batch(federation: Any) -> None:
    blueprint = build_blueprint(ModelSettings(name="resnet18"), (1, 32, 32), 3, 0)
    model = GradientModel(blueprint, "multiclass")
    weights = dict(blueprint.template.named_parameters())
    inputs = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = copy.deepcopy(blueprint.template).train()(inputs)
    torch.testing.assert_close(model.logits(weights, inputs), expected)
    assert model.has_batch_norm
    with pytest.raises(ConfigError, match=r"audit: BatchNorm .* one image.*audit.inversion_batches to 2"):
        model.logits(weights, inputs[:1])
