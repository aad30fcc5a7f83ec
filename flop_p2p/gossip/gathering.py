"""Masked gossip: the masked bodies that are asked for together, because only their sum means anything."""

from flop_p2p.gossip.actions import Ask, Mix
from flop_p2p.topology import fewest_senders


class Gathering:
    """What a node asks for in a round, and who has sent it.

    Args:
        asked: the latest round that it asked for before a restart, -1 if none.

    Attributes:
        asked: the latest round that it has asked for.
    """

    def __init__(self, asked: int = -1) -> None:
        self.asked = asked
        self._mix: Mix | None = None
        self._came: set[str] = set()

    def is_possible(self, mix: Mix, senders: int) -> bool:
        """Whether the parts of ``mix`` may be asked for: enough of so many senders, and once a round, for whoever
        answered for one list answers for no other.
        """
        return len(mix.parts) >= fewest_senders(senders) and mix.parts[0].round > self.asked

    def begin(self, mix: Mix) -> None:
        """Ask for the parts of ``mix``, which are all of one round."""
        self.asked = mix.parts[0].round
        self._mix, self._came = mix, set()

    def ask(self, receivers: tuple[str, ...]) -> Ask:
        """Tell ``receivers`` who takes part."""
        return Ask(self.asked, self._names, receivers)

    def arrived(self, name: str, round_index: int) -> None:
        """A masked body came."""
        if round_index == self.asked and name in self._names:
            self._came.add(name)

    @property
    def missing(self) -> tuple[str, ...]:
        """Whose masked bodies have not come, ascending."""
        return tuple(name for name in self._names if name not in self._came)

    def end(self) -> Mix | None:
        """Nothing is gathered from now on; what it was for."""
        mix, self._mix = self._mix, None
        return mix

    @property
    def _names(self) -> tuple[str, ...]:
        return () if self._mix is None else tuple(part.name for part in self._mix.parts)
