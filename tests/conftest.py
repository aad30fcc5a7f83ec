"""One torch thread, one hypothesis profile, and small data sets and models made on the spot."""

from collections.abc import Callable, Sequence

import hypothesis
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flop_p2p.data import Dataset, FederatedData, SiteSplit
from flop_p2p.learning import Samples

torch.set_num_threads(1)
hypothesis.settings.register_profile("shared machine", deadline=None, max_examples=40)
hypothesis.settings.load_profile("shared machine")

MakeData = Callable[..., FederatedData]
MakeSamples = Callable[..., Samples]


def blobs(labels: Sequence[int], shape: Sequence[int] = (4,), classes: int = 3, seed: int = 0) -> FederatedData:
    """One site whose samples of a class lie around that class's centre: a table, or grey or colour images."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(classes, *shape))
    chosen = np.asarray(labels, dtype=np.int64)
    inputs = (centres[chosen] + 0.3 * generator.normal(size=(len(chosen), *shape))).astype(np.float32)
    if len(shape) == 3:
        inputs = np.clip(128 + 50 * inputs, 0, 255).astype(np.uint8)
    return one_site(inputs, chosen, classes, "binary" if classes == 2 else "multiclass")


def one_site(inputs: np.ndarray, labels: np.ndarray, classes: int, task: str) -> FederatedData:
    """These samples at the site `north`, all of them for training and for testing."""
    everyone = np.arange(len(inputs))
    axes = (0, 2, 3) if inputs.ndim == 4 else (0,)
    scaled = inputs / 255 if inputs.dtype == np.uint8 else inputs
    spread = scaled.std(axis=axes)
    return FederatedData(
        Dataset("blobs", inputs, labels, tuple(f"class {number}" for number in range(classes)), task),  # type: ignore[arg-type]
        (SiteSplit("north", everyone, everyone[:0], everyone),),
        scaled.mean(axis=axes).astype(np.float32),
        np.where(spread > 0, spread, 1).astype(np.float32),
    )


@pytest.fixture(scope="session")
def make_data() -> MakeData:
    """`blobs`: ``make_data(labels, shape=(4,), classes=3, seed=0)``."""
    return blobs


@pytest.fixture(scope="session")
def make_samples() -> MakeSamples:
    """The samples of `blobs`, on the processor: ``make_samples(labels, shape=(4,), classes=3, seed=0)``."""

    def make(labels: Sequence[int], shape: Sequence[int] = (4,), classes: int = 3, seed: int = 0) -> Samples:
        return Samples(blobs(labels, shape, classes, seed), torch.device("cpu"))

    return make


@pytest.fixture(scope="session")
def multilabel_samples() -> Samples:
    """90 rows of 4 features with 3 labels, each the sign of a different feature."""
    inputs = np.random.default_rng(3).normal(size=(90, 4)).astype(np.float32)
    return Samples(one_site(inputs, (inputs[:, :3] > 0).astype(np.float32), 3, "multilabel"), torch.device("cpu"))


@pytest.fixture(scope="session")
def norm_net() -> Callable[[], nn.Module]:
    """Make a small network with BatchNorm for tables of 4 features and 3 classes; always the same weights."""

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    return make


@pytest.fixture(scope="session")
def state_of() -> Callable[[nn.Module], dict[str, Tensor]]:
    """A copy of everything a model holds, by name."""
    return lambda module: {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
