"""Ctrl-C and SIGTERM as a wish that a run heeds at its next safe point."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_wish() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether the user asked to stop; a second Ctrl-C stops at once.

    Outside the main thread, where Python delivers no signals, nothing is changed.
    """
    wished = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wished.is_set
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if wished.is_set():
            raise KeyboardInterrupt
        wished.set()

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield wished.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
