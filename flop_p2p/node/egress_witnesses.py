"""Who else knows what stood in an egress log: the site's own checkpoints, and the receipts of its neighbours."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from flop_p2p.errors import EgressError
from flop_p2p.node.egress import ANCHOR_FILE, RECEIPTS
from flop_p2p.node.egress_chain import place, rows
from flop_p2p.node.egress_line import GENESIS, parse_receipt_line
from flop_p2p.node.lines import log_files


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a neighbour says it received, and where it says so."""

    path: Path
    row: int
    receiver: str
    kind: str
    round: int

    def __str__(self) -> str:
        return f"{place(self.path, self.row)}: {self.receiver} received a {self.kind} of round {self.round}"


def read_anchors(folder: Path) -> dict[str, str]:
    """The hash of the log's last line when each checkpoint in ``folder`` was saved, by the name of its file, and
    when the log was last closed.

    Raises:
        EgressError: one of them cannot be read.
    """
    anchors = {}
    for path in [*sorted(folder.glob("checkpoint-*.safetensors")), folder / ANCHOR_FILE]:
        try:
            anchors[path.name] = _closing_chain(path) if path.name == ANCHOR_FILE else _checkpoint_chain(path)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            if path.exists():  # or there never was one, or a running node has just replaced it
                raise EgressError(f"{path}: cannot be read or is damaged; move it out of this folder") from error
    return anchors


def _checkpoint_chain(path: Path) -> str:
    with safe_open(path, framework="numpy") as file:
        return str(json.loads(file.metadata()["progress"])["chain"]) or GENESIS.hex()


def _closing_chain(path: Path) -> str:
    chain = path.read_text(encoding="ascii").strip()
    if len(bytes.fromhex(chain)) != len(GENESIS):
        raise ValueError("not a hash")
    return chain


def read_receipts(peer: Path, sender: str) -> dict[str, Receipt]:
    """The receipts for messages of ``sender`` that a neighbour kept, by the hash of the line in the sender's log.

    Half a line at the end is left out: the neighbour's node may be writing it.

    Args:
        peer: a state directory, or one file of receipts.

    Raises:
        EgressError: there are none, or a line is not a receipt.
    """
    files = log_files(peer, RECEIPTS) if peer.is_dir() else [peer]
    if not files:
        raise EgressError(f"{peer}: no {RECEIPTS}.jsonl here; give the state directory of a neighbour, or such a file")
    receipts = {}
    for path in files:
        for row, raw in rows(path):
            if raw.endswith(b"\n"):
                line = parse_receipt_line(raw[:-1], place(path, row))
                if line.sender == sender:
                    receiver, kind = sys.intern(line.receiver), sys.intern(line.kind)
                    receipts[line.chain] = Receipt(path, row, receiver, kind, line.round)
    return receipts
