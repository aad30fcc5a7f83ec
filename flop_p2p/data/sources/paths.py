"""Where the data lies."""

import os
from pathlib import Path

from flop_p2p.config import DataSettings
from flop_p2p.errors import ConfigError, DataError

DATA_VARIABLE = "FLOP_P2P_DATA"


def resolve_path(settings: DataSettings, kind: str) -> Path:
    """The path of the data as given, or else under the folder that ``$FLOP_P2P_DATA`` names.

    ``kind`` is ``file`` or ``folder``.

    Raises:
        ConfigError: no path was given.
        DataError: there is nothing at either place, or a folder where a file is needed or the reverse.
    """
    if settings.path is None:
        raise ConfigError(f"--data {settings.source} needs --data-path with its {kind}")
    places = [settings.path]
    root = os.environ.get(DATA_VARIABLE)
    if root and not settings.path.is_absolute():
        places.append(Path(root) / settings.path)
    for place in places:
        if place.is_dir() if kind == "folder" else place.is_file():
            return place
    for place in places:
        if place.exists():
            raise DataError(f"{place}: --data {settings.source} needs a {kind} as --data-path, and this is none")
    looked = " and ".join(str(place) for place in places)
    hint = "" if root else f" (${DATA_VARIABLE}, where relative paths are looked up too, is not set)"
    raise DataError(f"no {kind} at {looked}{hint}; give the right one with --data-path")
