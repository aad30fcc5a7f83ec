"""Which received bodies are kept for mixing: at most two of each neighbour. Only their rounds are known here."""

from collections.abc import Iterable

from flop_p2p.gossip.actions import Discard, DiscardReason, Part


class Inbox:
    """Received bodies by neighbour: the newest of the current round or earlier, and the newest beyond it.

    A body that is being mixed takes the first place until it is released.

    Args:
        staleness: rounds that a body may be late and still be kept.
    """

    def __init__(self, staleness: int) -> None:
        self._staleness = staleness
        self._held: dict[str, set[int]] = {}
        self._mixed: dict[str, int] = {}  # round of the latest body that was mixed
        self._in_use: dict[str, int] = {}

    def add(self, name: str, body_round: int, current: int) -> list[Discard]:
        """A body has come while ``current`` is the own round; what has to go for it, perhaps itself."""
        mixed = self._mixed.get(name, -1)
        if body_round == mixed or body_round in self._held.get(name, ()):
            return [Discard(name, body_round, "duplicate")]
        if body_round < max(mixed, current - self._staleness):
            return [Discard(name, body_round, "late")]
        self._held.setdefault(name, set()).add(body_round)
        return self._keep_newest(name, current)

    def advance(self, current: int) -> list[Discard]:
        """The own round is now ``current``; what is too late for it has to go."""
        discarded = []
        for name in sorted(self._held):
            late = {held for held in self._held[name] if held < current - self._staleness}
            discarded += self._drop(name, late, "late") + self._keep_newest(name, current)
        return discarded

    def drop(self, name: str, reason: DiscardReason) -> list[Discard]:
        """All bodies of a neighbour have to go."""
        return self._drop(name, set(self._held.get(name, ())), reason)

    def take_out(self, name: str, body_round: int, reason: DiscardReason) -> list[Discard]:
        """What is held of a neighbour's round has to go, unless it is being mixed."""
        free = body_round in self._held.get(name, ()) and self._in_use.get(name) != body_round
        return self._drop(name, {body_round}, reason) if free else []

    def now(self, name: str, current: int) -> int | None:
        """The round of the body held of the current round, or of a late one; None if there is none."""
        return max((held for held in self._held.get(name, ()) if held <= current), default=None)

    def ahead(self, name: str, current: int) -> int | None:
        """The round of the body held of a later round than the current; None if there is none."""
        return max((held for held in self._held.get(name, ()) if held > current), default=None)

    def latest(self, name: str) -> int:
        """The latest round of which a body is held or was mixed; -1 if none."""
        return max(self._mixed.get(name, -1), *self._held.get(name, ()), -1)

    def names(self) -> tuple[str, ...]:
        """The neighbours of which a body is held, ascending."""
        return tuple(sorted(name for name, held in self._held.items() if held))

    def use(self, parts: Iterable[Part]) -> None:
        """These bodies are being mixed from now on."""
        self._in_use = {part.name: part.round for part in parts}
        self._mixed |= self._in_use

    def keep(self) -> None:
        """What was being mixed is not, after all; it stays until it is late."""
        self._in_use = {}

    def release(self) -> None:
        """What was being mixed is mixed."""
        for name, used in self._in_use.items():
            self._held[name].discard(used)
        self._in_use = {}

    def _keep_newest(self, name: str, current: int) -> list[Discard]:
        used = self._in_use.get(name)
        kept = {self.now(name, current), self.ahead(name, current)} if used is None else {used, max(self._held[name])}
        return self._drop(name, self._held[name] - kept, "superseded")

    def _drop(self, name: str, rounds: set[int], reason: DiscardReason) -> list[Discard]:
        if rounds:
            self._held[name] -= rounds
        return [Discard(name, dropped, reason) for dropped in sorted(rounds)]
