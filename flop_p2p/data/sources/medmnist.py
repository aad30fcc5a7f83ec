"""MedMNIST-style `.npz` files (Yang et al. 2023, https://medmnist.com)."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from flop_p2p.data.dataset import Array, Dataset, single_label_task
from flop_p2p.errors import DataError

PARTS = ("train", "val", "test")
# What zipfile and numpy raise for damaged, foreign, encrypted and oversized archives.
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError, MemoryError)


def read_medmnist(path: Path) -> Dataset:
    """All images of an `.npz` with ``train_images``, ``train_labels`` and the same of ``val`` and ``test``.

    Images are uint8 ``[n, height, width]`` or ``[n, height, width, 3]``; labels are integers ``[n]`` or
    ``[n, 1]``, or ``[n, classes]`` of 0 and 1 for multilabel. Optional arrays are ``*_site`` and ``*_patient``
    ``[n]`` of text or integers, and ``class_names`` ``[classes]`` of text. Nothing in the file is unpickled.

    Raises:
        DataError: the file is corrupt, an array is missing or malformed, or a label is out of range.
    """
    arrays = _read_arrays(path)
    parts = [part for part in PARTS if f"{part}_images" in arrays or f"{part}_labels" in arrays]
    if "train" not in parts:
        raise DataError(f"{path}: there is no array train_images; there are {', '.join(sorted(arrays)) or 'none'}")
    for part in parts:
        _check_part(path, arrays, part)
    _check_same_shape(path, arrays, parts)
    images = np.concatenate([arrays[f"{part}_images"] for part in parts])
    labels = np.concatenate([arrays[f"{part}_labels"] for part in parts])
    names = _class_names(path, arrays, parts, labels)
    multilabel = labels.ndim == 2
    return Dataset(
        name=path.stem,
        inputs=images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
        labels=labels.astype(np.float32 if multilabel else np.int64),
        class_names=names,
        task="multilabel" if multilabel else single_label_task(names),
        sites=_extra(path, arrays, parts, "site"),
        patients=_extra(path, arrays, parts, "patient"),
    )


def _read_arrays(path: Path) -> dict[str, Array]:
    """The arrays that count, labels of one column flattened to ``[n]``."""
    wanted = {f"{part}_{what}" for part in PARTS for what in ("images", "labels", "site", "patient")} | {"class_names"}
    arrays: dict[str, Array] = {}
    name = "the archive"
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.removesuffix(".npy"): member for member in archive.namelist()}
            for name in sorted(wanted & members.keys()):
                with archive.open(members[name]) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                is_column = name.endswith("_labels") and array.ndim == 2 and array.shape[1] == 1
                arrays[name] = array[:, 0] if is_column else array
    except DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot read {name}, the file is truncated, corrupt or no .npz ({reason})") from error
    return arrays


def _check_part(path: Path, arrays: dict[str, Array], part: str) -> None:
    """Shapes, types and lengths of one of train, val and test."""
    for name in (f"{part}_images", f"{part}_labels"):
        if name not in arrays:
            raise DataError(f"{path}: the array {name} is missing; there are {', '.join(sorted(arrays))}")
    images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    if images.dtype != np.uint8:
        raise DataError(f"{path}: {part}_images has type {images.dtype}; images are uint8 from 0 to 255")
    if images.ndim != 3 and not (images.ndim == 4 and images.shape[3] == 3):
        shape = " x ".join(map(str, images.shape))
        raise DataError(f"{path}: {part}_images is {shape}; it must be N x height x width or N x height x width x 3")
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2):
        shape = " x ".join(map(str, labels.shape))
        raise DataError(
            f"{path}: {part}_labels is {shape} of {labels.dtype}; labels are integers, N x 1 or N x classes"
        )
    if len(images) != len(labels):
        raise DataError(f"{path}: {part}_images has {len(images)} images but {part}_labels has {len(labels)} labels")


def _check_same_shape(path: Path, arrays: dict[str, Array], parts: list[str]) -> None:
    for what in ("images", "labels"):
        for part in parts[1:]:
            first, other = arrays[f"train_{what}"].shape[1:], arrays[f"{part}_{what}"].shape[1:]
            if first != other:
                raise DataError(f"{path}: one sample of {part}_{what} has shape {other}, of train_{what} {first}")


def _class_names(path: Path, arrays: dict[str, Array], parts: list[str], labels: Array) -> tuple[str, ...]:
    """Names from the file or numbers as names; labels are checked against them.

    Without names, every class from 0 to the highest must occur: a gap betrays a label that is out of range.
    """
    multilabel = labels.ndim == 2
    given = arrays.get("class_names")
    if given is not None and (given.ndim != 1 or given.dtype.kind != "U"):
        raise DataError(f"{path}: class_names must be a list of text")
    if multilabel:
        classes, highest = labels.shape[1], 1
    elif given is not None:
        classes, highest = len(given), len(given) - 1
    else:
        classes = highest = _classes_without_gap(labels)
        highest -= 1
    for part in parts:
        values = arrays[f"{part}_labels"]
        wrong = (values < 0) | (values > highest)
        if wrong.any():
            row = int(np.argwhere(wrong)[0, 0])
            value = values[wrong][0]
            hint = " (where classes are missing, name all in an array class_names)" if given is None else ""
            raise DataError(
                f"{path}: {part}_labels row {row}: label {value} is out of range; labels go from 0 to {highest}{hint}"
            )
    if given is None:
        return tuple(str(number) for number in range(classes))
    if len(given) != classes or len(set(given.tolist())) != classes:
        raise DataError(f"{path}: class_names must be {classes} different names, one a class")
    return tuple(given.tolist())


def _classes_without_gap(labels: Array) -> int:
    """How many classes occur in a row from 0."""
    present = np.unique(labels)
    present = present[present >= 0]
    matching = present == np.arange(len(present))
    return len(present) if matching.all() else int(np.argmin(matching))


def _extra(path: Path, arrays: dict[str, Array], parts: list[str], what: str) -> Array | None:
    names = [f"{part}_{what}" for part in parts]
    if not any(name in arrays for name in names):
        return None
    for part, name in zip(parts, names, strict=True):
        if name not in arrays:
            raise DataError(f"{path}: the array {name} is missing, though other parts have theirs")
        samples = len(arrays[f"{part}_labels"])
        if arrays[name].shape != (samples,) or arrays[name].dtype.kind not in "iuU":
            raise DataError(f"{path}: {name} must be {samples} texts or integers, one a sample")
    values = np.concatenate([arrays[name] for name in names])
    return values.astype(str) if what == "site" else values
