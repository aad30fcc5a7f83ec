"""One entry to all sources: reading, the limit on the number of samples, channels and size of images."""

from dataclasses import replace

import numpy as np

from flop_p2p.config import DataSettings
from flop_p2p.data.dataset import Array, Dataset
from flop_p2p.data.sources.bundled import read_breast_cancer, read_digits
from flop_p2p.data.sources.folder import list_folder
from flop_p2p.data.sources.idx import read_idx_folder
from flop_p2p.data.sources.image_csv import list_image_csv
from flop_p2p.data.sources.images import ImageList
from flop_p2p.data.sources.medmnist import read_medmnist
from flop_p2p.data.sources.paths import resolve_path
from flop_p2p.data.sources.table import read_table
from flop_p2p.data.subset import draw_subset
from flop_p2p.errors import ConfigError


def read_source(settings: DataSettings, rng: np.random.Generator) -> Dataset:
    """All samples of the source, or ``limit_images`` of them drawn with ``rng``.

    Raises:
        ConfigError: an option that this source needs is missing, or one that it cannot honour is given.
        DataError: the data cannot be read.
    """
    if settings.source in ("folder", "image-csv"):
        images = _list_images(settings)
        images = images.take(draw_subset(images.labels, settings.limit_images, rng))
        return images.decode(settings.image_size, settings.channels)
    dataset = _read(settings)
    if settings.limit_images is not None:
        dataset = dataset.take(draw_subset(dataset.labels, settings.limit_images, rng))
    for flag, value in (("--channels", settings.channels), ("--image-size", settings.image_size)):
        if value is not None and not dataset.is_image:
            raise ConfigError(f"{flag} {value}: {dataset.name} is a table, not images")
    inputs = dataset.inputs
    if settings.channels is not None:
        inputs = with_channels(inputs, settings.channels)
    if settings.image_size is not None:
        inputs = with_size(inputs, settings.image_size)
    return replace(dataset, inputs=inputs)


def _list_images(settings: DataSettings) -> ImageList:
    if settings.source == "folder":
        return list_folder(resolve_path(settings, "folder"))
    return list_image_csv(resolve_path(settings, "file"), settings)


def _read(settings: DataSettings) -> Dataset:
    match settings.source:
        case "digits":
            return read_digits()
        case "breast-cancer":
            return read_breast_cancer()
        case "medmnist":
            return read_medmnist(resolve_path(settings, "file"))
        case "idx":
            return read_idx_folder(resolve_path(settings, "folder"))
        case _:
            return read_table(resolve_path(settings, "file"), settings)


def with_channels(images: Array, channels: int) -> Array:
    """Images uint8 ``[samples, 1 or 3, height, width]`` with so many channels; grey is the luma of ITU-R 601."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    grey = np.empty((len(images), 1, *images.shape[2:]), np.uint8)
    for start in range(0, len(images), 256):
        block = images[start : start + 256].astype(np.uint32)
        grey[start : start + 256, 0] = (299 * block[:, 0] + 587 * block[:, 1] + 114 * block[:, 2] + 500) // 1000
    return grey


def with_size(images: Array, size: int) -> Array:
    """Images uint8 ``[samples, channels, height, width]`` resized to ``size`` x ``size`` pixels (bilinear)."""
    import torch
    from torchvision.transforms.v2.functional import resize

    resized = np.empty((*images.shape[:2], size, size), np.uint8)
    for start in range(0, len(images), 256):
        block = torch.from_numpy(np.ascontiguousarray(images[start : start + 256]))
        resized[start : start + 256] = resize(block, [size, size], antialias=True).numpy()
    return resized
