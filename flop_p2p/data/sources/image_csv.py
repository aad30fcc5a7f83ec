"""Image files listed in a CSV file."""

from pathlib import Path

from flop_p2p.config import DataSettings
from flop_p2p.data.sources.csv_file import encode_labels, read_csv
from flop_p2p.data.sources.images import ImageList
from flop_p2p.errors import DataError


def list_image_csv(path: Path, settings: DataSettings) -> ImageList:
    """The images of a CSV with columns for path, label, and optionally patient and site.

    Relative paths count from the folder of the CSV.

    Raises:
        DataError: a column is missing, a cell is empty, or a file is not there.
    """
    table = read_csv(path)
    files = tuple(path.parent / text for text in table.texts(settings.path_column, "--path-column"))
    for line, file in zip(table.lines, files, strict=True):
        if not file.is_file():
            raise DataError(f"{path}: line {line}: there is no image file {file}")
    labels, names = encode_labels(table.texts(settings.label_column, "--label-column"))
    return ImageList(
        name=path.stem,
        paths=files,
        labels=labels,
        class_names=names,
        origins=tuple(f"{path}: line {line}" for line in table.lines),
        sites=table.optional_texts(settings.site_column, "--site-column"),
        patients=table.optional_texts(settings.patient_column, "--patient-column"),
    )
