"""CSV files with a header: reading them with line numbers for errors."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flop_p2p.data.dataset import Array
from flop_p2p.errors import DataError


@dataclass(frozen=True)
class CsvFile:
    """The cells of a CSV file, stripped; ``lines`` has the line of the file in which each row ends."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def index(self, column: str, option: str) -> int:
        """Where a column is; ``option`` names it in the error.

        Raises:
            DataError: there is no such column.
        """
        if column not in self.header:
            raise DataError(f"{self.path}: there is no column {column} ({option}); there are {', '.join(self.header)}")
        return self.header.index(column)

    def texts(self, column: str, option: str) -> list[str]:
        """The cells of a column.

        Raises:
            DataError: there is no such column, or a cell of it is empty.
        """
        index = self.index(column, option)
        for line, row in zip(self.lines, self.rows, strict=True):
            if not row[index]:
                raise DataError(f"{self.path}: line {line}: column {column} is empty")
        return [row[index] for row in self.rows]

    def optional_texts(self, column: str | None, option: str) -> Array | None:
        """The cells of a column as an array of text, or None if no column is named."""
        return None if column is None else np.asarray(self.texts(column, option))


def read_csv(path: Path) -> CsvFile:
    """A comma-separated UTF-8 file with a header; blank lines are passed over.

    Raises:
        DataError: the file is no such CSV, a column has no name or one twice, or a row has another length.
    """
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = tuple(cell.strip() for cell in next(reader, []))
            _check_header(path, header)
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{path}: line {reader.line_num}: has {len(row)} cells, the header has {len(header)}"
                    )
                rows.append(tuple(cell.strip() for cell in row))
                lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        where = f"line {lines[-1] + 1}: " if lines else ""
        raise DataError(f"{path}: {where}not a readable UTF-8 CSV file ({error})") from error
    if not rows:
        raise DataError(f"{path}: there is no row below the header")
    return CsvFile(path, header, tuple(rows), tuple(lines))


def _check_header(path: Path, header: Sequence[str]) -> None:
    if not header:
        raise DataError(f"{path}: is empty; the first line must name the columns")
    for number, name in enumerate(header, 1):
        if not name:
            raise DataError(f"{path}: line 1: column {number} has no name")
        if name in header[: number - 1]:
            raise DataError(f"{path}: line 1: the column {name} is there twice")


def encode_labels(texts: Sequence[str]) -> tuple[Array, tuple[str, ...]]:
    """Labels int64 ``[samples]`` and the class names: ascending as numbers if all are whole, else as text."""
    names = sorted(set(texts))
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    numbers = {name: number for number, name in enumerate(names)}
    return np.asarray([numbers[text] for text in texts], np.int64), tuple(names)
