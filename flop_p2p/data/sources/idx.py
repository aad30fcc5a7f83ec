"""The idx files of MNIST and Fashion-MNIST, as published, gzipped or not."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from flop_p2p.data.dataset import Array, Dataset, single_label_task
from flop_p2p.errors import DataError

UNSIGNED_BYTE = 0x08


def read_idx_folder(folder: Path) -> Dataset:
    """The training and test images of a folder with the four files of MNIST.

    Raises:
        DataError: a file is missing, truncated, corrupt, or does not fit its neighbour.
    """
    images, labels = [], []
    for part in ("train", "t10k"):
        image_file = _find(folder, f"{part}-images-idx3-ubyte")
        label_file = _find(folder, f"{part}-labels-idx1-ubyte")
        images.append(read_idx(image_file, dimensions=3))
        labels.append(read_idx(label_file, dimensions=1))
        if len(images[-1]) != len(labels[-1]):
            raise DataError(
                f"{image_file}: {len(images[-1])} images, but {label_file.name} has {len(labels[-1])} labels"
            )
        if images[0].shape[1:] != images[-1].shape[1:]:
            raise DataError(f"{image_file}: its images differ in size from the training images")
        if len(labels[-1]) and labels[-1].max() > 9:
            row = int(np.argmax(labels[-1] > 9))
            raise DataError(f"{label_file}: row {row}: label {labels[-1][row]} is out of range; labels go from 0 to 9")
    names = tuple(str(digit) for digit in range(10))
    return Dataset(
        name=folder.resolve().name,
        inputs=np.concatenate(images)[:, None],
        labels=np.concatenate(labels).astype(np.int64),
        class_names=names,
        task=single_label_task(names),
    )


def read_idx(path: Path, dimensions: int) -> Array:
    """One idx file of unsigned bytes with so many dimensions.

    The header is two zero bytes, the type, the number of dimensions, and each size as a big-endian uint32.

    Raises:
        DataError: the header is another one, or the file is shorter or longer than the header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot read this file, it is truncated or corrupt ({error})") from error
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{path}: truncated: {len(content)} bytes, shorter than its header of {header} bytes")
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        raise DataError(f"{path}: starts with bytes {content[:4].hex()}, not 000008{dimensions:02x} as its kind of idx")
    sizes = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != math.prod(sizes):
        shape = " x ".join(map(str, sizes))
        raise DataError(
            f"{path}: truncated or corrupt: the header says {shape} = {math.prod(sizes)} bytes of data, "
            f"there are {len(content) - header}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise DataError(f"{folder}: there is neither {name} nor {name}.gz in this folder")
