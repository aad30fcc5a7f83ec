"""Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) as a wish that a run heeds at its next safe point."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_SECONDS = 1.0  # torchrun and Slurm may pass on a signal that has come already
SIGHUP = getattr(signal, "SIGHUP", None)  # there is none on Windows


@contextmanager
def stop_wish() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether the user asked to stop; a second Ctrl-C, a second later, stops at once.

    A process that was told to ignore SIGHUP, as by nohup, goes on ignoring it. Outside the main thread, where Python
    delivers no signals, nothing is changed.
    """
    first: float | None = None

    def wished() -> bool:
        return first is not None

    if threading.current_thread() is not threading.main_thread():
        yield wished
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if SIGHUP is not None and signal.getsignal(SIGHUP) != signal.SIG_IGN:
        before[SIGHUP] = signal.getsignal(SIGHUP)

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = now
        elif now - first > AGAIN_SECONDS and number != SIGHUP:  # a terminal that closes may send it twice
            raise KeyboardInterrupt

    for number in before:
        signal.signal(number, ask)
    try:
        yield wished
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
