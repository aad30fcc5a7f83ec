"""What a node knows of its neighbours."""

from dataclasses import dataclass


@dataclass
class Neighbour:
    """What greetings, heartbeats, bodies and a goodbye have told of one neighbour.

    connected: it can be reached now.
    greeted: it could be reached at some time since the start.
    round: the round that it is in, as far as is known; -1 if nothing is.
    passed: bodies of earlier rounds than this one do not come any more.
    last_round: it said that no body of a later round comes: in its goodbye, or as it only receives from then on.
    finished: it has completed all rounds.
    given_up: it could not be reached for a whole deadline, and has not greeted since.
    declined: it sends no masked body of this round.
    promised: it greeted from so far ahead that it sends its latest body, whoever's turn it is.
    """

    connected: bool = False
    greeted: bool = False
    round: int = -1
    passed: int = -1
    last_round: int | None = None
    finished: bool = False
    given_up: bool = False
    promised: bool = False
    declined: int = -1

    @property
    def gone(self) -> bool:
        """It has left for good: it finished, and can no longer be reached."""
        return self.finished and not self.connected

    @property
    def silent(self) -> bool:
        """It is there, and sends no bodies any more."""
        return self.connected and self.last_round is not None

    def greets(self, round_index: int, finished: bool) -> None:
        """It is there, in this round; what it said before holds no more."""
        self.connected = self.greeted = True
        self.round = round_index
        self.passed = max(self.passed, round_index - 1)
        self.last_round = None
        self.finished = finished
        self.given_up = False

    def tells(self, round_index: int) -> None:
        """It is in this round, or was a moment ago."""
        self.round = max(self.round, round_index)

    def sends(self, body_round: int) -> None:
        """A body of this round came, so that none of an earlier round will."""
        self.tells(body_round)
        self.passed = max(self.passed, body_round)
        self.promised = False

    def falls_silent(self, round_index: int) -> None:
        """It sends no body of this round or a later one, and goes on receiving."""
        self.last_round = round_index - 1
        self.tells(round_index)

    def leaves(self, last_round: int, finished: bool) -> None:
        """It said goodbye."""
        self.lose()
        self.last_round = last_round
        self.finished = finished

    def lose(self) -> None:
        """It can no longer be reached."""
        self.connected = False

    def has_reached(self, round_index: int) -> bool:
        """Whether it is, or was before a restart, in this round or a later one."""
        return max(self.round, self.passed) >= round_index

    def may_send(self, round_index: int) -> bool:
        """Whether its body of this round may still come and is worth waiting for."""
        left = self.last_round is not None and self.last_round < round_index
        said_no = left or self.passed > round_index or self.declined == round_index
        return not said_no and (self.connected or not self.given_up)


class Neighbours(dict[str, Neighbour]):
    """All that have been heard of, by name; another is one of which nothing is known."""

    def __missing__(self, name: str) -> Neighbour:
        return self.setdefault(name, Neighbour())
