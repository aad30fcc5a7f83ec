"""Random changes to training images."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flop_p2p.errors import ConfigError

if TYPE_CHECKING:
    import torch

    Augmentation = Callable[[torch.Tensor], torch.Tensor]

KNOWN = "horizontal-flip, vertical-flip, crop:PIXELS, rotation:DEGREES, jitter:STRENGTH"


def build_augmentation(names: Sequence[str]) -> "Augmentation | None":
    """A function from a batch of images, uint8 ``[batch, channels, height, width]``, to a changed one.

    The transforms are torchvision's (v2), in the order of ``names``, each drawn anew for every image from
    torch's global generator: flips with probability 1/2, ``crop`` a shift by at most PIXELS with black borders,
    ``rotation`` by at most DEGREES, ``jitter`` of brightness and contrast by at most STRENGTH (0 to 1). None
    without names.

    Raises:
        ConfigError: a name is unknown, or its number is missing or out of range.
    """
    if not names:
        return None
    steps = [_step(name) for name in names]

    def augment(batch: "torch.Tensor") -> "torch.Tensor":
        import torch

        changed = []
        for image in batch:
            for step in steps:
                image = step(image)
            changed.append(image)
        return torch.stack(changed)

    return augment


def _step(name: str) -> "Augmentation":
    from torchvision.transforms import v2

    kind, _, text = name.partition(":")
    match kind:
        case "horizontal-flip" | "vertical-flip" if text:
            raise ConfigError(f"--augment {name}: {kind} takes no number")
        case "horizontal-flip":
            flip: Augmentation = v2.RandomHorizontalFlip()
            return flip
        case "vertical-flip":
            flip = v2.RandomVerticalFlip()
            return flip
        case "crop":
            pixels = int(_number(name, text, 1, 10_000, whole=True))
            return lambda image: v2.RandomCrop(image.shape[-2:], padding=pixels)(image)
        case "rotation":
            degrees = _number(name, text, 0, 180)
            rotation: Augmentation = v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR)
            return rotation
        case "jitter":
            strength = _number(name, text, 0, 1)
            jitter: Augmentation = v2.ColorJitter(brightness=strength, contrast=strength)
            return jitter
        case _:
            raise ConfigError(f"--augment {name}: there is no such augmentation; there are {KNOWN}")


def _number(name: str, text: str, low: float, high: float, whole: bool = False) -> float:
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"--augment {name}: needs {kind} from {low:g} to {high:g}, as in {KNOWN}")
    return value
