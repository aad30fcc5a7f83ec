"""CSV tables: one row a sample, numbers as features."""

from pathlib import Path

import numpy as np

from flop_p2p.config import DataSettings
from flop_p2p.data.dataset import Array, Dataset, single_label_task
from flop_p2p.data.sources.csv_file import CsvFile, encode_labels, read_csv
from flop_p2p.errors import DataError

LARGEST = float(np.finfo(np.float32).max)


def read_table(path: Path, settings: DataSettings) -> Dataset:
    """A table whose columns are features, but for those of label, site and patient.

    Features are not scaled here: that is fitted later, on training samples only.

    Raises:
        DataError: a column is missing, or a cell is empty, not a number, NaN or infinite.
    """
    table = read_csv(path)
    labels, names = encode_labels(table.texts(settings.label_column, "--label-column"))
    sites = table.optional_texts(settings.site_column, "--site-column")
    patients = table.optional_texts(settings.patient_column, "--patient-column")
    special = {settings.label_column, settings.site_column, settings.patient_column}
    features = [index for index, name in enumerate(table.header) if name not in special]
    if not features:
        raise DataError(f"{path}: there is no column left for features")
    task = single_label_task(names)
    return Dataset(path.stem, _numbers(table, features), labels, names, task, sites, patients)


def _numbers(table: CsvFile, features: list[int]) -> Array:
    """The feature columns, float32 ``[rows, features]``."""
    values = np.empty((len(table.rows), len(features)), np.float32)
    for number, row in enumerate(table.rows):
        for place, index in enumerate(features):
            value = _number(row[index])
            if value is None:
                shown = row[index][:40] or "empty"
                raise DataError(
                    f"{table.path}: line {table.lines[number]}: column {table.header[index]} is {shown}, "
                    "and a feature must be a finite number"
                )
            values[number, place] = value
    return values


def _number(text: str) -> float | None:
    """The number in a cell, or None if it is none that a float32 holds."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if -LARGEST <= value <= LARGEST else None
