"""Augmentation: torchvision's transforms, drawn for every image by itself."""

import pytest
import torch

from flop_p2p.data import build_augmentation
from flop_p2p.errors import ConfigError


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_no_names_no_augmentation() -> None:
    assert build_augmentation(()) is None


@pytest.mark.parametrize("name", ["horizontal-flip", "vertical-flip", "crop:2", "rotation:20", "jitter:0.5"])
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_type_and_seed(batch: torch.Tensor, name: str, channels: int) -> None:
    batch = batch.expand(-1, channels, -1, -1)
    augment = build_augmentation([name])
    assert augment is not None
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = augment(batch)
        torch.manual_seed(3)
        again = augment(batch)
        other = augment(batch)
    assert first.shape == batch.shape
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_each_image_has_its_own_draw(batch: torch.Tensor) -> None:
    augment = build_augmentation(["horizontal-flip"])
    assert augment is not None
    changed = augment(batch)
    flipped = [torch.equal(new, old.flip(-1)) for new, old in zip(changed, batch, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(changed, batch, strict=True)]
    assert sum(flipped) + sum(kept) == 32
    assert 4 < sum(flipped) < 28


def test_several_are_applied_in_order() -> None:
    augment = build_augmentation(["crop:1", "vertical-flip"])
    assert augment is not None
    white = torch.full((16, 1, 4, 4), 255, dtype=torch.uint8)
    assert (augment(white) == 0).any()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mirror", "no such augmentation; there are horizontal-flip, vertical-flip, crop:PIXELS"),
        ("crop", "needs a whole number"),
        ("crop:1.5", "needs a whole number"),
        ("rotation:190", "needs a number from 0 to 180"),
        ("jitter:nan", "needs a number from 0 to 1"),
        ("horizontal-flip:1", "takes no number"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_augmentation([name])
