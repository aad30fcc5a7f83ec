"""One site's data in one safetensors file, split for good: what `flop-p2p data export` writes and a node reads."""

import json
from pathlib import Path
from typing import cast, get_args

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from flop_p2p.data.dataset import Array, Dataset, Task
from flop_p2p.data.load import FederatedData, SiteSplit
from flop_p2p.errors import DataError
from flop_p2p.writing import writing

PARTS = ("train", "validation", "test")
PATIENTS = "patients"
FORMAT = "flop-p2p site data 1"


def export_site(data: FederatedData, site: SiteSplit, path: Path) -> None:
    """Write the samples of one site, ``<part>.inputs`` and ``<part>.labels`` of its three splits.

    Where the data know patients, ``<part>.patients`` has a number for each: their names stay out of the file.

    Raises:
        RunError: the file cannot be written.
    """
    dataset = data.dataset
    tensors = {}
    patients = None if dataset.patients is None else np.unique(dataset.patients.astype(str), return_inverse=True)[1]
    for part in PARTS:
        indices = getattr(site, part)
        if patients is not None:
            tensors[f"{part}.{PATIENTS}"] = patients.reshape(-1)[indices]
        tensors[f"{part}.inputs"] = np.ascontiguousarray(dataset.inputs[indices])
        tensors[f"{part}.labels"] = np.ascontiguousarray(dataset.labels[indices])
    metadata = {
        "format": FORMAT,
        "name": site.name,
        "task": dataset.task,
        "class_names": json.dumps(dataset.class_names),
    }
    with writing(path):
        save_file(tensors, path, metadata=metadata)


def read_site_file(path: Path) -> tuple[Dataset, SiteSplit]:
    """What `export_site` wrote; nothing in the file is trusted.

    Raises:
        DataError: the file is damaged or foreign, or a shape, type, label or number in it is wrong.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot read this file, it is absent, damaged or no safetensors ({error})") from error
    task, class_names = _described(path, metadata)
    wanted = ("inputs", "labels", *([PATIENTS] if f"train.{PATIENTS}" in arrays else []))
    if arrays.keys() != {f"{part}.{what}" for part in PARTS for what in wanted}:
        raise DataError(
            f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}, not {' and '.join(wanted)} of three splits"
        )
    for part in PARTS:
        inputs, labels = arrays[f"{part}.inputs"], arrays[f"{part}.labels"]
        where = f"{path}: {part}"
        _check_inputs(where, inputs, arrays["train.inputs"].shape[1:])
        _check_labels(where, labels, len(inputs), task, len(class_names))
        if PATIENTS in wanted:
            _check_patients(where, arrays[f"{part}.{PATIENTS}"], len(inputs))
    dataset = Dataset(
        name=metadata.get("name", path.stem),
        inputs=np.concatenate([arrays[f"{part}.inputs"] for part in PARTS]),
        labels=np.concatenate([arrays[f"{part}.labels"] for part in PARTS]),
        class_names=class_names,
        task=task,
        patients=np.concatenate([arrays[f"{part}.{PATIENTS}"] for part in PARTS]) if PATIENTS in wanted else None,
    )
    ends = np.cumsum([len(arrays[f"{part}.labels"]) for part in PARTS])
    train, validation, test = np.split(np.arange(ends[-1]), ends[:-1])
    return dataset, SiteSplit(dataset.name, train, validation, test)


def _described(path: Path, metadata: dict[str, str]) -> tuple[Task, tuple[str, ...]]:
    """Task and class names."""
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path}: is no site data of this version ({FORMAT}); write it with `flop-p2p data export`")
    task = metadata.get("task")
    try:
        names = json.loads(metadata.get("class_names", ""))
    except ValueError:
        names = None
    if task not in get_args(Task):
        raise DataError(f"{path}: task is {task!r}; it must be {', '.join(get_args(Task))}")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: class_names must be a list of text")
    if len(set(names)) != len(names):
        raise DataError(f"{path}: class_names names a class twice")
    return cast(Task, task), tuple(names)


def _check_inputs(where: str, inputs: Array, shape: tuple[int, ...]) -> None:
    """Images uint8 ``[samples, channels, height, width]`` or a table float32 ``[samples, features]``, samples alike."""
    if (inputs.ndim, inputs.dtype) not in ((4, np.dtype(np.uint8)), (2, np.dtype(np.float32))):
        raise DataError(
            f"{where}.inputs is {list(inputs.shape)} of {inputs.dtype}; it must be images, uint8 [samples, channels, "
            "height, width], or a table, float32 [samples, features]"
        )
    if inputs.shape[1:] != shape:
        raise DataError(f"{where}.inputs has samples of shape {list(inputs.shape[1:])}, train.inputs of {list(shape)}")
    if inputs.dtype == np.float32 and not np.isfinite(inputs).all():
        row = int(np.argwhere(~np.isfinite(inputs))[0, 0])
        raise DataError(f"{where}.inputs row {row} holds NaN or an infinite number")


def _check_labels(where: str, labels: Array, samples: int, task: Task, classes: int) -> None:
    """Labels int64 ``[samples]``, or for ``multilabel`` float32 ``[samples, classes]`` of 0 and 1."""
    multilabel = task == "multilabel"
    shape, dtype = ((samples, classes), np.float32) if multilabel else ((samples,), np.int64)
    if labels.shape != shape or labels.dtype != dtype:
        raise DataError(
            f"{where}.labels is {list(labels.shape)} of {labels.dtype}; "
            f"for task {task} it must be {list(shape)} of {np.dtype(dtype).name}"
        )
    wrong = ~np.isin(labels, (0, 1)) if multilabel else (labels < 0) | (labels >= classes)
    if wrong.any():
        row = int(np.argwhere(wrong)[0, 0])
        highest = 1 if multilabel else classes - 1
        raise DataError(f"{where}.labels row {row}: label {labels[wrong][0]} is not one of 0 to {highest}")


def _check_patients(where: str, patients: Array, samples: int) -> None:
    """Numbers of patients, int64 ``[samples]``."""
    if patients.shape != (samples,) or patients.dtype != np.int64:
        raise DataError(
            f"{where}.patients is {list(patients.shape)} of {patients.dtype}; it must be {[samples]} of int64"
        )
