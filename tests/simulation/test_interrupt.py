"""A first signal is a wish, a second one later an order."""

import os
import signal

import pytest

from flop_p2p.simulation import interrupt
from flop_p2p.simulation.interrupt import stop_wish


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_passed_on_twice_is_one_wish(number: int) -> None:
    before = signal.getsignal(number)
    with stop_wish() as asked_to_stop:
        assert not asked_to_stop()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert asked_to_stop()
    assert signal.getsignal(number) is before


def test_a_second_one_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "AGAIN_SECONDS", 0)
    with stop_wish():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
