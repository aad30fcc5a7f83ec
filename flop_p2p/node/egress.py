"""The egress log: no message leaves the site before its line is written, and every line holds the hash of the last."""

import contextlib
import hashlib
import json
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flop_p2p.errors import EgressError
from flop_p2p.node.egress_line import GENESIS, objection, parse_egress_line
from flop_p2p.node.lines import MAX_BYTES, LineLog, replace_durably
from flop_p2p.node.shared_schema import read_schema
from flop_p2p.transport.hub import NOT_RECEIPTED

EGRESS, RECEIPTS = "egress", "receipts"
ANCHOR_FILE = "egress.anchor"

COMPACT = json.JSONEncoder(separators=(",", ":"))

logger = logging.getLogger(__name__)


class EgressLog:
    """Implements `transport.base.Egress` with files in the state directory. Safe to use from several threads.

    The chain hash of a message is the SHA-256 of its line; the next line holds it as ``previous``. The line of a
    message for which the neighbour keeps a receipt is on the disk, safe from a loss of power, before it leaves: so
    no receipt can ever be without its line. Bodies may leave only if ``schema.json`` says what they hold. Only the
    holder of the state directory's `StateLock` may open the log.

    Args:
        folder: the state directory.
        name: of this site.
        max_bytes: size from which a file is rotated.

    Raises:
        EgressError: the log cannot be opened, or does not end with a line of this site.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._name = name
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._syncing = threading.Lock()  # taken before the other
        schema = read_schema(folder)
        self._sizes = schema.sizes if schema else None
        self._schema_hash = schema.body.sha256 if schema else None
        self._number = 0
        self._chain: bytes | None = None
        self._lines: LineLog | None = None
        self._sync_failed = False
        self._receipts: LineLog | None = None
        self._receipts_lost = 0
        try:
            self._open()
        except OSError as error:
            raise self._failure(error) from error

    @property
    def last_chain(self) -> bytes:
        """Hash of the newest line, which survives a loss of power once this returns; 32 zeros before the first.

        Raises:
            EgressError: the log cannot be written.
        """
        return self.sync()

    def sync(self) -> bytes:
        """See `transport.base.Egress.sync`. Lines can be written meanwhile."""
        with self._syncing:
            with self._lock:
                chain, lines = self._chain or GENESIS, self._lines
                self._check_synced()
                if lines is None or not lines.unsynced:
                    return chain
                try:
                    file = os.dup(lines.file)  # for the log may be rotated meanwhile
                except OSError as error:
                    raise self._failure(error) from error
                lines.unsynced = False
            try:
                os.fsync(file)
            except OSError as error:
                with self._lock:
                    self._sync_failed = True
                    raise self._failure(error) from error
            finally:
                os.close(file)
            return chain

    def _check_synced(self) -> None:
        """After a failed sync nobody knows which lines are on the disk, and trying again would not tell."""
        if self._sync_failed:
            raise EgressError(
                f"{self._folder}: lines of the egress log did not reach the disk; nothing is sent: mend the disk, "
                "then start the node again"
            )

    def record(
        self, receiver: str, kind: str, round_index: int, size: int, sha256: bytes, *, durable: bool = True
    ) -> bytes:
        """Write one line and return its hash (32 bytes), the chain that travels with the message.

        Args:
            durable: see `transport.base.Egress.record`.

        Raises:
            EgressError: the line cannot be written, or such a message may not leave; then nothing may be sent.
        """
        if reason := objection(kind, size, self._sizes):
            raise EgressError(f"{self._folder}: a message to {receiver} is not sent: {reason}")
        with self._lock:
            self._check_synced()
            try:
                lines = self._lines or self._open()
                line = self._line(receiver, kind, round_index, size, sha256)
                lines.append(line, durable=durable and kind not in NOT_RECEIPTED)
            except OSError as error:
                raise self._failure(error) from error
            self._number += 1
            self._chain = hashlib.sha256(line).digest()
            return self._chain

    def receipt(self, sender: str, kind: str, round_index: int, chain: bytes) -> None:
        """Keep the chain hash that came with a neighbour's message. A failure is logged and does not stop the node:
        receipts guard the neighbour's log, not this one."""
        content = {
            "time": _now(),
            "sender": sender,
            "receiver": self._name,
            "round": round_index,
            "kind": kind,
            "chain": chain.hex(),
        }
        try:
            if self._receipts is None:
                self._receipts = LineLog(self._folder, RECEIPTS, self._max_bytes)
            self._receipts.append(_encode(content), durable=False)
        except OSError as error:
            self._receipts_lost += 1
            if self._receipts_lost == 1:
                reason = error.strerror or error
                logger.error("%s: receipts cannot be written (%s); neighbours' logs go unchecked", self._folder, reason)
            _close(self._receipts)
            self._receipts = None

    def close(self) -> None:
        """Close both files and leave the last chain hash in ``egress.anchor``, so that a cut end can be told.

        Raises:
            EgressError: the log or the anchor cannot be written.
        """
        if not self._sync_failed:  # an anchor must not name a line that may not be there
            anchor = self.last_chain.hex()
            try:
                replace_durably(self._folder / ANCHOR_FILE, f"{anchor}\n".encode())
            except OSError as error:
                raise self._failure(error) from error
        with self._lock:
            _close(self._lines)
            _close(self._receipts)
            self._lines = self._receipts = None

    def _line(self, receiver: str, kind: str, round_index: int, size: int, sha256: bytes) -> bytes:
        return _encode(
            {
                "number": self._number + 1,
                "time": _now(),
                "sender": self._name,
                "receiver": receiver,
                "round": round_index,
                "kind": kind,
                "schema": self._schema_hash if kind == "body" else None,
                "bytes": size,
                "sha256": sha256.hex(),
                "previous": (self._chain or GENESIS).hex(),
            }
        )

    def _open(self) -> LineLog:
        """Open the log, or open it anew after a failure; then it must still end where it did."""
        lines = LineLog(self._folder, EGRESS, self._max_bytes)
        try:
            number, chain, previous = self._read_last(lines)
            if self._chain is not None and self._chain not in (chain, previous):
                raise EgressError(f"{lines.path}: no longer ends with what was written; nothing is sent")
        except EgressError:
            lines.close()
            raise
        self._number, self._chain, self._lines = number, chain, lines
        return lines

    def _read_last(self, lines: LineLog) -> tuple[int, bytes, bytes]:
        """Number, hash and previous hash of the last line."""
        if lines.last_line is None:
            return 0, GENESIS, GENESIS
        last = parse_egress_line(lines.last_line, f"{lines.path}, last line")
        if last.sender != self._name:
            raise EgressError(f"{lines.path}: the log of {last.sender}, but this site is {self._name}")
        return last.number, hashlib.sha256(lines.last_line).digest(), bytes.fromhex(last.previous)

    def _failure(self, error: OSError) -> EgressError:
        self._sync_failed |= self._lines is not None and self._lines.sync_failed
        _close(self._lines)
        self._lines = None
        reason = error.strerror or error
        return EgressError(f"{self._folder / EGRESS}.jsonl: cannot be written ({reason}); nothing is sent without it")


def _close(lines: LineLog | None) -> None:
    if lines is not None:
        with contextlib.suppress(OSError):
            lines.close()


def _encode(content: dict[str, Any]) -> bytes:
    return COMPACT.encode(content).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
