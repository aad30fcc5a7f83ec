"""Image files: a list of them with labels, and decoding it to one array."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from flop_p2p.data.dataset import Array, Dataset, Indices, single_label_task
from flop_p2p.errors import DataError

GREY_MODES = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
DECODING_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageList:
    """Image files that are not decoded yet, with what is known of each; ``labels`` is int64 ``[samples]``.

    ``origins`` says in an error where a file was named, for example ``list.csv: line 7``; empty for a folder.
    """

    name: str
    paths: tuple[Path, ...]
    labels: Array
    class_names: tuple[str, ...]
    origins: tuple[str, ...] = ()
    sites: Array | None = None
    patients: Array | None = None

    def where(self, index: int) -> str:
        """The file, and where it was named, for an error."""
        return f"{self.origins[index]}: {self.paths[index]}" if self.origins else str(self.paths[index])

    def take(self, indices: Indices) -> "ImageList":
        """These images only, in this order."""
        return ImageList(
            self.name,
            tuple(self.paths[index] for index in indices),
            self.labels[indices],
            self.class_names,
            tuple(self.origins[index] for index in indices) if self.origins else (),
            None if self.sites is None else self.sites[indices],
            None if self.patients is None else self.patients[indices],
        )

    def decode(self, image_size: int | None, channels: int | None) -> Dataset:
        """All images in one array, resized to squares of ``image_size`` pixels if it is given.

        ``channels`` is 1 or 3; without it, images are grey if all files are. Files of more than 8
        bits (many X-rays) are scaled alike, by the number of bits that the brightest of them uses.

        Raises:
            DataError: a file cannot be decoded, or sizes differ and no ``image_size`` is given.
        """
        found = [_open(self, index, _look_at) for index in range(len(self.paths))]
        if channels is None:
            channels = 1 if all(mode in GREY_MODES for _, mode, _ in found) else 3
        size = (image_size, image_size) if image_size is not None else self._common_size([size for size, _, _ in found])
        bits = max(bits for _, _, bits in found)
        pixels = np.empty((len(self.paths), channels, size[1], size[0]), np.uint8)
        for index in range(len(self.paths)):
            decoded = _open(self, index, lambda image: _to_bytes(image, size, channels, bits))
            pixels[index] = decoded[None] if channels == 1 else decoded.transpose(2, 0, 1)
        task = single_label_task(self.class_names)
        return Dataset(self.name, pixels, self.labels, self.class_names, task, self.sites, self.patients)

    def _common_size(self, sizes: list[tuple[int, int]]) -> tuple[int, int]:
        for index, size in enumerate(sizes):
            if size != sizes[0]:
                raise DataError(
                    f"{self.where(index)}: is {size[0]} x {size[1]} pixels and {self.paths[0].name} "
                    f"{sizes[0][0]} x {sizes[0][1]}; give one size for all with --image-size"
                )
        return sizes[0]


def _open(images: ImageList, index: int, use: Callable[[Image.Image], Result]) -> Result:
    try:
        with Image.open(images.paths[index]) as image:
            return use(image)
    except FileNotFoundError as error:
        raise DataError(f"{images.where(index)}: there is no such image file") from error
    except DECODING_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{images.where(index)}: truncated, corrupt or no image file ({reason})") from error


def _look_at(image: Image.Image) -> tuple[tuple[int, int], str, int]:
    """Size, mode, and how many bits the pixels use (8 unless the file is a deep one)."""
    bits = int(np.asarray(image).max(initial=0)).bit_length() if image.mode in DEEP_MODES else 8
    return image.size, image.mode, min(max(bits, 8), 16)


def _to_bytes(image: Image.Image, size: tuple[int, int], channels: int, bits: int) -> Array:
    """Pixels uint8 ``[height, width]`` for one channel, ``[height, width, 3]`` for three."""
    if image.mode in DEEP_MODES:
        values = np.clip(np.asarray(image).astype(np.int64), 0, 2**bits - 1)
        image = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)
