"""What the round protocol asks its driver to do. The driver carries the actions out in their order."""

from dataclasses import dataclass
from typing import Literal

Timer = Literal["start", "deadline"]
DiscardReason = Literal["late", "duplicate", "superseded", "unexpected", "declined"]


@dataclass(frozen=True)
class Train:
    """Train this round locally, then report `RoundProtocol.trained`, or `passed_over` where that may not be."""

    round: int


@dataclass(frozen=True)
class Publish:
    """The body is final for this round: store it, then send it to ``receivers`` (those connected, ascending).

    It comes once more, perhaps with no receivers, after a restart from a stored body: `Resend` may follow.
    """

    round: int
    receivers: tuple[str, ...]


@dataclass(frozen=True)
class Resend:
    """Send the latest published body to this neighbour once more: it came back, or it is behind."""

    name: str


@dataclass(frozen=True)
class Part:
    """A neighbour's body of ``round`` and the weight it gets."""

    name: str
    round: int
    weight: float


@dataclass(frozen=True)
class Mix:
    """Replace the own body by the weighted sum, in ascending order of names, then report `RoundProtocol.mixed`.

    Free the parts after that. The weights sum to one.

    round: the round that ends with this.
    parts: ascending by name; a part of an earlier round stands for a body that is missing.
    absent: neighbours of which no body is mixed: their weight went to the site itself, at a server to the others.
    catches_up: the parts are the mean of the bodies of neighbours that are ahead, and the own body counts nothing.
    """

    round: int
    own_weight: float
    parts: tuple[Part, ...]
    absent: tuple[str, ...] = ()
    catches_up: bool = False


@dataclass(frozen=True)
class Ask:
    """Masked gossip: tell ``receivers`` who takes part in the sum of ``round``, so that they send their masked bodies.

    It comes again, to those whose masked bodies are missing, when they can be reached once more; the list is the same.
    Report `RoundProtocol.masked_body_arrived` for each masked body of this list.
    """

    round: int
    participants: tuple[str, ...]
    receivers: tuple[str, ...]


@dataclass(frozen=True)
class Discard:
    """Free a received body that is not going to be mixed; in masked gossip forget a declaration.

    reason: ``late``: older than the staleness bound or than a body that was mixed; ``superseded``: a newer one
        of the neighbour is held; ``unexpected``: not a neighbour's, or of a round that does not exist; ``declined``:
        its sender took the declaration back;
        ``duplicate``: the body *that has just come*; the one of the same name and round that came before is
        still held, or being mixed, or mixed.
    """

    name: str
    round: int
    reason: DiscardReason


@dataclass(frozen=True)
class SetTimer:
    """Report `RoundProtocol.timer` after so many seconds; a timer of the same name starts anew."""

    timer: Timer
    seconds: float


@dataclass(frozen=True)
class CancelTimer:
    """Forget this timer."""

    timer: Timer


@dataclass(frozen=True)
class Finish:
    """There is nothing left to do: all rounds are ``complete``, or the driver asked to stop."""

    complete: bool


Action = Train | Publish | Resend | Ask | Mix | Discard | SetTimer | CancelTimer | Finish
