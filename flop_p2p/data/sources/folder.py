"""Image folders in the layout of torchvision's ImageFolder: one folder a class."""

from pathlib import Path

import numpy as np

from flop_p2p.data.sources.images import ImageList
from flop_p2p.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


def list_folder(root: Path) -> ImageList:
    """The images of ``root/CLASS/**``, classes and files in ascending order; other files are passed over.

    Raises:
        DataError: there are no class folders, one has no images, or they are splits and not classes.
    """
    folders = sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not folders:
        raise DataError(f"{root}: there is no folder in it; --data folder needs one folder of images a class")
    if all(folder.name.lower() in SPLIT_NAMES for folder in folders):
        raise DataError(
            f"{root}: the folders {', '.join(folder.name for folder in folders)} look like splits and not like "
            "classes; give one of them with --data-path, or list all images in a file for --data image-csv"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        if not found:
            raise DataError(f"{folder}: there is no image in this class folder ({' '.join(IMAGE_SUFFIXES)})")
        paths += found
        labels += [label] * len(found)
    names = tuple(folder.name for folder in folders)
    return ImageList(root.resolve().name, tuple(paths), np.asarray(labels, np.int64), names)
