"""What a node has spent of its privacy budget: `privacy.json`, on the disk before a gradient step is taken.

It is a file of its own beside the checkpoints: if a checkpoint is lost and a round is trained anew, the steps of both
count, for the body of the first may have left.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from flop_p2p.config import PrivacySettings, SiteSettings
from flop_p2p.errors import ConfigError, NodeError
from flop_p2p.learning import Ledger
from flop_p2p.node.lines import replace_durably
from flop_p2p.writing import writing

FILE = "privacy.json"
REMEDY = "without it nobody knows what the bodies that left have spent; put it back, or begin anew with another state"


class _File(BaseModel):
    """history: noise multiplier, sampling rate and number of steps; stopped: round counted from 0."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    history: list[tuple[PositiveFloat, PositiveFloat, PositiveInt]]
    stopped: NonNegativeInt | None


def budget_of(privacy: PrivacySettings, site: SiteSettings) -> float | None:
    """The smaller of the federation's epsilon and the site's own; None for none.

    Raises:
        ConfigError: the site has a budget, and the federation no differential privacy.
    """
    own = site.privacy.epsilon
    if own is not None and not privacy.differential:
        raise ConfigError(
            f"site {site.name}: privacy.epsilon in site.toml is a budget of differential privacy, which the federation "
            "has not (privacy.noise_multiplier is 0); leave it out"
        )
    return min((epsilon for epsilon in (privacy.epsilon, own) if epsilon is not None), default=None)


class Spending:
    """The privacy budget of one node.

    Args:
        folder: the state directory.
        rate: probability with which a record or patient takes part in a step.
        budget: see `budget_of`.
        begun: there is a checkpoint, so the file must be there, too.

    Attributes:
        epsilon: spent so far. It is computed when steps are accounted for, by the thread that trains, for that may take
            seconds, in which the event loop must go on.
        stopped: the round, counted from 0, from which on the budget allows no training; None as long as it does.

    Raises:
        ConfigError: opacus is not installed.
        NodeError: the file is missing or damaged.
    """

    def __init__(
        self, folder: Path, privacy: PrivacySettings, rate: float, budget: float | None, *, begun: bool
    ) -> None:
        self._path = folder / FILE
        self._privacy, self._rate = privacy, rate
        before = self._read(begun)
        self._ledger = Ledger(privacy, rate, budget, before.history)
        self.epsilon = self._ledger.epsilon
        self.stopped = before.stopped

    def begin(self, round_index: int, steps: int) -> bool:
        """Account for the steps that a round is about to take; False if they would exceed the budget.

        Raises:
            RunError: the file cannot be written; then no step may be taken.
        """
        allowed = self._ledger.allows(steps)
        if allowed:
            self._ledger.spend(steps)
            self.stopped = None  # a budget that was raised
        elif self.stopped is None:
            self.stopped = round_index
        self._write()
        self.epsilon = self._ledger.epsilon
        return allowed

    def give_back(self, steps: int) -> None:
        """So many of the steps accounted for were not taken, for the node was stopped.

        Raises:
            RunError: the file cannot be written.
        """
        self._ledger.spend(-steps)
        self._write()
        self.epsilon = self._ledger.epsilon

    def describe(self) -> dict[str, Any]:
        """As `summary.json` and `flop-p2p status` tell it; rounds are counted from 1."""
        return {
            **self._privacy.model_dump(exclude={"masking", "masking_range", "epsilon"}),
            "budget": self._ledger.budget,
            "epsilon": self.epsilon,
            "steps": self._ledger.steps,
            "sampling_rate": self._rate,
            "stopped": None if self.stopped is None else self.stopped + 1,
        }

    def _read(self, begun: bool) -> _File:
        try:
            return _File.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            if begun:
                raise NodeError(f"{self._path}: is missing, and this node has trained; {REMEDY}") from None
            return _File(history=[], stopped=None)
        except OSError as error:
            raise NodeError(f"{self._path}: cannot be read ({error.strerror}); {REMEDY}") from error
        except ValidationError as error:
            raise NodeError(f"{self._path}: damaged ({error.errors()[0]['msg']}); {REMEDY}") from error

    def _write(self) -> None:
        text = json.dumps({"history": self._ledger.history, "stopped": self.stopped}) + "\n"
        with writing(self._path):
            replace_durably(self._path, text.encode())
