"""One node a state directory: a lock that ends with its process, however that dies."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from flop_p2p.errors import NodeError


class StateLock:
    """Held from construction until `release`, or until the process ends.

    Raises:
        NodeError: another process holds it, or the directory cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "lock"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise NodeError(f"{path}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._file, 20).decode(errors="replace").strip()
            os.close(self._file)
            raise NodeError(
                f"{folder}: another node runs on this state directory (process {holder}); stop it first"
            ) from error
        except OSError as error:
            os.close(self._file)
            raise NodeError(f"{path}: cannot be locked ({error.strerror}); use a local file system") from error
        try:
            os.truncate(self._file, 0)
            os.write(self._file, f"{os.getpid()}\n".encode())
        except OSError as error:
            os.close(self._file)
            raise NodeError(f"{path}: cannot be written ({error.strerror})") from error

    def release(self) -> None:
        """Let another node take the directory. The file stays: removing it would race with its next holder."""
        os.close(self._file)

    def __enter__(self) -> "StateLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
