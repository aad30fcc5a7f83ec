"""Seconds that a local run took, over interruptions."""

import json
import time
from pathlib import Path

from flop_p2p.errors import RunError
from flop_p2p.writing import write_text


class Clock:
    """Runs from construction to `stop`, on top of what ``path`` says that earlier starts took.

    The time of a start that was killed is lost.

    Raises:
        RunError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds = 0.0
        if path.exists():
            try:
                self.seconds = float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise RunError(f"{path}: damaged ({error!r}); delete it to count the time anew") from error
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Add the time since the start and write it down.

        Raises:
            RunError: the file cannot be written.
        """
        self.seconds += time.perf_counter() - self._started
        write_text(self._path, json.dumps({"seconds": self.seconds}) + "\n")
