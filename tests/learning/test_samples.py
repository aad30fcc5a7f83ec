"""Samples as tensors, normalized batch by batch, and the logits of a model on them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flop_p2p.data import FederatedData
from flop_p2p.errors import TrainingError
from flop_p2p.learning import Samples, predict

CPU = torch.device("cpu")
MakeData = Callable[..., FederatedData]


@pytest.mark.parametrize("shape", [(4,), (1, 6, 5), (3, 6, 5)])
def test_batches_are_normalized(shape: tuple[int, ...], make_data: MakeData) -> None:
    data = make_data([0, 1, 2] * 5, shape)
    inputs, labels = Samples(data, CPU).batch(torch.tensor([4, 0, 4]))
    raw, axes = data.dataset.inputs[[4, 0, 4]], (1,) * (len(shape) - 1)
    scaled = raw / 255 if raw.dtype == np.uint8 else raw
    expected = (scaled - data.mean.reshape(-1, *axes)) / data.std.reshape(-1, *axes)
    assert inputs.dtype == torch.float32
    np.testing.assert_allclose(inputs.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert labels.tolist() == [1, 0, 1]


def test_all_samples_together_have_mean_zero_and_deviation_one(make_data: MakeData) -> None:
    inputs, _ = Samples(make_data([0, 1, 2] * 20, (3, 4, 4)), CPU).batch(torch.arange(60))
    np.testing.assert_allclose(inputs.mean(dim=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(inputs.std(dim=(0, 2, 3)), 1, rtol=1e-2)


def test_images_stay_bytes_and_share_the_memory_of_the_data_set(make_data: MakeData) -> None:
    data = make_data([0, 1, 2], (1, 4, 4))
    samples = Samples(data, CPU)
    assert samples.inputs.dtype == torch.uint8
    assert samples.inputs.data_ptr() == data.dataset.inputs.ctypes.data
    assert (samples.sample_shape, samples.outputs, samples.task) == ((1, 4, 4), 3, "multiclass")


@pytest.mark.parametrize("change", ["read-only", "strided"])
def test_arrays_that_torch_cannot_share(change: str, make_data: MakeData) -> None:
    data = make_data([0, 1, 2] * 4, (1, 4, 4))
    values = data.dataset.inputs.copy()
    array = values if change == "read-only" else np.repeat(values, 2, axis=0)[::2]
    array.flags.writeable = change != "read-only"
    object.__setattr__(data.dataset, "inputs", array)
    assert np.array_equal(Samples(data, CPU).inputs.numpy(), values)


def test_augmentation_sees_the_raw_images(make_data: MakeData) -> None:
    data, seen = make_data([0, 1, 2], (1, 4, 4)), []

    def blacken(images: Tensor) -> Tensor:
        seen.append(images.clone())
        return torch.zeros_like(images)

    inputs, _ = Samples(data, CPU).batch(torch.tensor([2]), blacken)
    assert np.array_equal(seen[0].numpy(), data.dataset.inputs[[2]])
    np.testing.assert_allclose(inputs.numpy(), -data.mean[0] / data.std[0], rtol=1e-5)
    assert data.dataset.inputs.any()


def test_logits_in_evaluation_mode_and_in_order(make_data: MakeData, norm_net: Callable[[], nn.Module]) -> None:
    samples, model = Samples(make_data([0, 1, 2] * 400), CPU), norm_net()
    counter = model[1].num_batches_tracked.clone()
    order = np.random.default_rng(0).permutation(1200)  # more than one batch of evaluation
    logits = predict(model.train(), samples, order)
    assert (logits.shape, logits.dtype) == ((1200, 3), np.float32)
    assert torch.equal(model[1].num_batches_tracked, counter)
    with torch.no_grad():
        expected = model.eval()(samples.batch(torch.from_numpy(order))[0]).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_predictions_that_are_not_finite_are_refused(
    value: float, make_data: MakeData, norm_net: Callable[[], nn.Module]
) -> None:
    model = norm_net()
    model[3].bias.data[1] = value
    with pytest.raises(TrainingError, match="diverged"):
        predict(model, Samples(make_data([0, 1, 2]), CPU), np.arange(3))
