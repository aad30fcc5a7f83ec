"""What a node keeps of its rounds: checkpoints, the lines of `metrics.jsonl`, and times spent."""

import time
from typing import Any

from flop_p2p.config import FederationSettings
from flop_p2p.gossip.actions import Mix
from flop_p2p.gossip.protocol import RoundProtocol
from flop_p2p.node.checkpoint import CheckpointPhase, Checkpoints, Progress
from flop_p2p.node.egress import EgressLog
from flop_p2p.node.membership import Membership
from flop_p2p.node.records import Records
from flop_p2p.node.spending import Spending
from flop_p2p.node.worker import Partway, SiteModel
from flop_p2p.transport.base import Transport

Figures = dict[str, Any]


class Journal:
    """Writes down what happened in every round. Used from the computing thread, read from the event loop.

    Args:
        rounds: how many there are.
        checkpoint_seconds: time between checkpoints inside a long round.
        evaluate_every: rounds between evaluations; 0 evaluates after the last only.
        progress: of the checkpoint that the node resumes from.
        spending: the privacy budget; None without differential privacy.
    """

    def __init__(
        self,
        protocol: RoundProtocol,
        membership: Membership,
        model: SiteModel,
        transport: Transport,
        checkpoints: Checkpoints,
        egress: EgressLog,
        records: Records,
        *,
        rounds: int,
        checkpoint_seconds: float,
        evaluate_every: int,
        progress: Progress | None = None,
        spending: Spending | None = None,
    ) -> None:
        self.spending = spending
        self._protocol = protocol
        self._membership = membership
        self._model = model
        self._transport = transport
        self._checkpoints = checkpoints
        self._egress = egress
        self.records = records
        self.rounds = rounds
        self._checkpoint_seconds = checkpoint_seconds
        self._evaluate_every = evaluate_every
        before = progress.extra if progress is not None else {}
        self.seconds: dict[str, float] = {
            "training": 0.0,
            "mixing": 0.0,
            "evaluation": 0.0,
            **before.get("seconds", {}),
        }
        self._bytes_before: dict[str, int] = {"sent": 0, "received": 0, **before.get("bytes", {})}
        self._loss: float | None = before.get("loss")
        self._training_seconds = 0.0
        self._saved = time.monotonic()
        self._federation: FederationSettings | None = None
        self._federation_id = ""

    def bytes(self) -> dict[str, int]:
        """Bytes that went to and came from neighbours so far, over restarts."""
        links = self._transport.links().values()
        return {
            "sent": self._bytes_before["sent"] + sum(link.sent_bytes for link in links),
            "received": self._bytes_before["received"] + sum(link.received_bytes for link in links),
        }

    def is_checkpoint_due(self) -> bool:
        """Whether the last checkpoint is long ago."""
        return time.monotonic() - self._saved > self._checkpoint_seconds

    def save(self, phase: CheckpointPhase, round_index: int, partway: Partway | None = None) -> None:
        """Write a checkpoint.

        Raises:
            NodeError: it cannot be written.
        """
        extra = {
            "absences": {name: list(rounds) for name, rounds in self._protocol.absences.items()},
            "data": self._model.data_hash,
            "stale_bodies": self._protocol.stale_uses,
            "catch_ups": self._protocol.catch_ups,
            "masked_skips": list(self._protocol.masked_skips),
            "seconds": self.seconds,
            "bytes": self.bytes(),
            "loss": self._loss,
        }
        chain = self._egress.last_chain.hex()
        federation_id = self._id_of(self._membership.own(round_index))
        self._checkpoints.save(self._model, Progress(round_index, phase, federation_id, chain, partway, extra))
        self._saved = time.monotonic()

    def _id_of(self, federation: FederationSettings) -> str:
        """Its id, computed once as long as it is the same."""
        if federation is not self._federation:
            self._federation, self._federation_id = federation, federation.id
        return self._federation_id

    def may_train(self, round_index: int, steps: int) -> bool:
        """Whether the privacy budget allows so many gradient steps; if so, they are accounted for on the disk.

        Raises:
            RunError: that cannot be written.
        """
        if self.spending is None or self.spending.begin(round_index, steps):
            return True
        self._loss, self._training_seconds = None, 0.0
        return False

    def not_taken(self, steps: int) -> None:
        """So many of these steps were not taken, for the node was stopped."""
        if self.spending is not None:
            self.spending.give_back(steps)

    def trained(self, loss: float, seconds: float) -> None:
        """A round of training ended with this mean loss."""
        self._loss, self._training_seconds = loss, seconds
        self.seconds["training"] += seconds

    def mixed(self, action: Mix, seconds: float) -> None:
        """A round is complete: evaluate if it is due, add its line, and store the end of the last one."""
        self.seconds["mixing"] += seconds
        completed = (max(part.round for part in action.parts) if action.catches_up else action.round) + 1
        every = self._evaluate_every
        asked = completed == self.rounds or (every > 0 and completed % every == 0)
        start = time.perf_counter()
        figures = self._model.evaluate() if asked else {"validation": None, "test": None}
        self.seconds["evaluation"] += time.perf_counter() - start
        total = self.bytes()
        self.records.add(
            {
                "round": completed,
                "site": self._model.name,
                "train_loss": None if action.catches_up else self._loss,
                "validation": figures["validation"],
                "test": figures["test"],
                "absent": list(action.absent),
                "caught_up": action.catches_up,
                "bytes_sent": total["sent"],
                "bytes_received": total["received"],
                "epsilon": None if self.spending is None else self.spending.epsilon,
                "seconds": self._training_seconds,
            }
        )
        if completed == self.rounds:
            self.save("done", completed)
