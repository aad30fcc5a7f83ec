"""Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) as a wish that a run heeds at its next safe point."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGHUP = getattr(signal, "SIGHUP", None)  # there is none on Windows


@contextmanager
def stop_wish() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether the user asked to stop; a second Ctrl-C stops at once.

    A process that was told to ignore SIGHUP, as by nohup, goes on ignoring it. Outside the main thread, where Python
    delivers no signals, nothing is changed.
    """
    wished = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wished.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if SIGHUP is not None and signal.getsignal(SIGHUP) != signal.SIG_IGN:
        before[SIGHUP] = signal.getsignal(SIGHUP)

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if wished.is_set() and number != SIGHUP:  # a terminal that closes may send it twice
            raise KeyboardInterrupt
        wished.set()

    for number in before:
        signal.signal(number, ask)
    try:
        yield wished.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
