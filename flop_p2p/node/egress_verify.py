"""Is an egress log what was once written, and did only bodies of the agreed schema leave?"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flop_p2p.errors import EgressError
from flop_p2p.node.egress import EGRESS
from flop_p2p.node.egress_chain import Entry, follow, read_entries
from flop_p2p.node.egress_line import GENESIS, EgressLine, objection
from flop_p2p.node.egress_witnesses import Receipt, read_anchors, read_receipts
from flop_p2p.node.lines import log_files
from flop_p2p.node.shared_schema import SCHEMA_FILE, SharedSchema, read_schema

Passed = Callable[[str, str], None]
ATTEMPTS = 3  # where a running node writes or rotates its log while it is read


@dataclass
class Traffic:
    """What left for one neighbour: messages (bodies among them), their bytes, and the times of first and last."""

    messages: int = 0
    bodies: int = 0
    size: int = 0
    first: str = ""
    last: str = ""

    def add(self, line: EgressLine) -> None:
        """Count one more message."""
        self.messages += 1
        self.bodies += line.kind == "body"
        self.size += line.size
        self.first = self.first or line.time
        self.last = line.time


@dataclass
class _Log:
    """What was found in a log whose chain holds.

    traffic: by receiver.
    found: hashes that a witness knows and that the log holds.
    last: the newest entry; None if the log is empty.
    """

    traffic: dict[str, Traffic] = field(default_factory=dict)
    found: set[str] = field(default_factory=set)
    last: Entry | None = None


def verify(
    folder: Path, peers: Sequence[Path] = (), name: str | None = None, passed: Passed = lambda *_: None
) -> dict[str, Traffic]:
    """Check the egress log in the state directory ``folder`` and return what left, by receiver.

    Args:
        peers: state directories of neighbours, or files of their receipts.
        name: of the site whose log it must be; None takes the one that the first line tells.
        passed: told the name and the result of every check that held.

    Raises:
        EgressError: a check failed, the line is named where it can be; or there is no log, or no line in it.
    """
    if not folder.is_dir():
        raise EgressError(f"{folder}: there is no such folder; give the site.toml or the state directory of a site")
    name = name or _owner(folder)
    schema = read_schema(folder)
    # witnesses first: a running node goes on, and its log must hold what they knew before it was read
    anchors = read_anchors(folder)
    receipts = {peer: read_receipts(peer, name) for peer in peers}
    known = {chain: receipt for kept in receipts.values() for chain, receipt in kept.items()}
    log = _read(folder, name, schema, known, {*anchors.values()})
    if log.last is None:  # what a witness knows of it says more than that it is empty
        _check_anchors(folder, anchors, log)
        for peer, kept in receipts.items():
            _check_receipts(folder, peer, kept, log)
        raise _no_line(folder)
    passed("chain", _chain_result(folder, log))
    passed("schema", _schema_result(folder, schema, log))
    passed("anchor", _check_anchors(folder, anchors, log))
    for peer, kept in receipts.items():
        passed("receipts", _check_receipts(folder, peer, kept, log))
    if not peers:
        passed("receipts", "not compared; name the receipts of neighbours with --peer")
    return log.traffic


def _owner(folder: Path) -> str:
    """The site that the log says it belongs to."""
    first = next(read_entries(folder), None)
    if first is None:
        raise _no_line(folder)
    return first.line.sender


def _no_line(folder: Path) -> EgressError:
    return EgressError(f"{folder}: no line in {EGRESS}.jsonl, so nothing is shown; a site that sent anything has some")


def _read(
    folder: Path, name: str, schema: SharedSchema | None, known: Mapping[str, Receipt], anchors: Collection[str]
) -> _Log:
    """Read the log, once more if something seemed wrong and a running node wrote to it meanwhile."""
    for _ in range(ATTEMPTS - 1):
        before = _sizes(folder)
        try:
            return _read_once(folder, name, schema, known, anchors)
        except EgressError:
            if _sizes(folder) == before:
                raise
    return _read_once(folder, name, schema, known, anchors)


def _sizes(folder: Path) -> list[tuple[Path, int]] | None:
    try:
        return [(path, path.stat().st_size) for path in log_files(folder, EGRESS)]
    except FileNotFoundError:  # just rotated
        return None


def _read_once(
    folder: Path, name: str, schema: SharedSchema | None, known: Mapping[str, Receipt], anchors: Collection[str]
) -> _Log:
    log = _Log()
    for entry in follow(read_entries(folder), {*known, *anchors}):
        line = entry.line
        receipt = known.get(entry.hash)
        if reason := _objection(line, name, schema) or (receipt and _contradiction(line, receipt)):
            raise EgressError(f"{entry.where}: {reason}")
        log.traffic.setdefault(line.receiver, Traffic()).add(line)
        if receipt or entry.hash in anchors:
            log.found.add(entry.hash)
        log.last = entry
    return log


def _objection(line: EgressLine, name: str, schema: SharedSchema | None) -> str | None:
    """Why such a message should not have left; None if it may."""
    if line.sender != name:
        return f"a message of {line.sender} in the log of {name}"
    if reason := objection(line.kind, line.size, schema.sizes if schema else None):
        return reason
    expected = schema.body.sha256 if schema and line.kind == "body" else None
    if line.schema_hash != expected:
        return f"a {line.kind} of schema {line.schema_hash}, but {SCHEMA_FILE} gives {expected}"
    return None


def _contradiction(line: EgressLine, receipt: Receipt) -> str | None:
    """What is told otherwise by a receipt for this very line."""
    if (line.receiver, line.kind, line.round) == (receipt.receiver, receipt.kind, receipt.round):
        return None
    return f"a {line.kind} of round {line.round} for {line.receiver}, but {receipt}"


def _chain_result(folder: Path, log: _Log) -> str:
    total, files = sum(each.messages for each in log.traffic.values()), len(log_files(folder, EGRESS))
    return f"{total:,} lines in {files:,} file{'s' * (files != 1)}, each with the hash of the line before"


def _schema_result(folder: Path, schema: SharedSchema | None, log: _Log) -> str:
    if schema is None:
        return "no body has left"
    if both := sorted({*schema.body.names} & {*schema.head}):
        raise EgressError(f"{folder / SCHEMA_FILE}: {', '.join(both)}: shared and private at once")
    bodies, size = sum(each.bodies for each in log.traffic.values()), " or ".join(f"{size:,}" for size in schema.sizes)
    private = ", ".join(schema.head) or "nothing"
    return f"{bodies:,} bodies, each the same {len(schema.body.names)} tensors in {size} bytes; kept back: {private}"


def _check_anchors(folder: Path, anchors: Mapping[str, str], log: _Log) -> str:
    for file, chain in anchors.items():
        if chain != GENESIS.hex() and chain not in log.found:
            end = f"{log.last.where} (number {log.last.line.number})" if log.last else "nothing"
            raise EgressError(
                f"{folder / file}: written after a line with hash {chain[:16]}..., which the log lacks: its end "
                f"was cut off or edited, or all of it rebuilt; it now ends with {end}"
            )
    if not anchors:
        return "no checkpoint yet, so an end that was cut off shows in receipts only"
    return f"the log holds the lines that were its last when {', '.join(anchors)} were written"


def _check_receipts(folder: Path, peer: Path, receipts: Mapping[str, Receipt], log: _Log) -> str:
    if missing := next((receipt for chain, receipt in receipts.items() if chain not in log.found), None):
        raise EgressError(_missing(folder, missing, log.found))
    if not receipts:
        return f"{peer}: no receipt for a message of this site"
    messages = sum(log.traffic[name].messages for name in {receipt.receiver for receipt in receipts.values()})
    return f"{peer}: {len(receipts):,} receipts, each for a line of the log, which tells of {messages:,} messages there"


def _missing(folder: Path, receipt: Receipt, found: Collection[str]) -> str:
    """The message about a receipt that fits no line; names the line in its place if there is one."""
    asked = (receipt.receiver, receipt.kind, receipt.round)
    for entry in read_entries(folder):
        if (entry.line.receiver, entry.line.kind, entry.line.round) == asked and entry.hash not in found:
            return f"{entry.where}: edited or rebuilt, or a line like it is missing: {receipt}, of another hash"
    return (
        f"{folder / EGRESS}.jsonl: a line is missing or edited, or all was rebuilt: {receipt}, and no line is like it"
    )
