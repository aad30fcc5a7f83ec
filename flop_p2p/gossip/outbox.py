"""The actions that a node has decided on and its driver has not yet got."""

from collections import Counter
from collections.abc import Iterable

from flop_p2p.gossip.actions import Action, CancelTimer, Discard, SetTimer, Timer


class Outbox:
    """Actions in their order, the timers that run, and how many bodies were discarded for which reason."""

    def __init__(self) -> None:
        self.discarded: Counter[str] = Counter()
        self._actions: list[Action] = []
        self._running: set[Timer] = set()

    def add(self, action: Action) -> None:
        """Ask for this."""
        self._actions.append(action)

    def discard(self, discarded: Iterable[Discard]) -> None:
        """Ask for these, and count them."""
        for discard in discarded:
            self.discarded[discard.reason] += 1
            self.add(discard)

    def set_timer(self, timer: Timer, seconds: float) -> None:
        """Set a timer, unless it runs already."""
        if timer not in self._running:
            self._running.add(timer)
            self.add(SetTimer(timer, seconds))

    def cancel_timer(self, timer: Timer) -> None:
        """Cancel a timer if it runs."""
        if timer in self._running:
            self._running.discard(timer)
            self.add(CancelTimer(timer))

    def rings(self, timer: Timer) -> bool:
        """A timer is due; False if it was not set."""
        rings = timer in self._running
        self._running.discard(timer)
        return rings

    def runs(self, timer: Timer) -> bool:
        """Whether a timer is set."""
        return timer in self._running

    def take(self) -> list[Action]:
        """Hand out what has been added since the last call."""
        actions, self._actions = self._actions, []
        return actions
