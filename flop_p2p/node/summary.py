"""What a node says about itself: while it runs (status) and at the end (`summary.json`, last log line)."""

import dataclasses
from typing import Any

from flop_p2p.gossip.protocol import RoundProtocol
from flop_p2p.node.journal import Journal
from flop_p2p.node.membership import Membership
from flop_p2p.transport.base import LinkStatus, Transport

Figures = dict[str, Any]


def status(
    name: str, protocol: RoundProtocol, membership: Membership, journal: Journal, transport: Transport, started: float
) -> Figures:
    """The running node as `flop-p2p status` and the metrics show it. Rounds are counted from 1 here."""
    federation = membership.own(protocol.round_index)
    latest = journal.records.last or {}
    evaluated = next((line for line in reversed(journal.records.lines) if line["test"] is not None), {})
    test, validation = evaluated.get("test") or {}, evaluated.get("validation") or {}
    links = transport.links()
    return {
        "name": name,
        "federation": federation.name,
        "federation_id": federation.id,
        "revision": federation.revision,
        "role": federation.member(name).role,
        "round": min(protocol.round_index + 1, journal.rounds),
        "completed": len({line["round"] for line in journal.records.lines}),
        "rounds": journal.rounds,
        "phase": protocol.phase,
        "waiting_for": list(protocol.waiting_for),
        "train_loss": latest.get("train_loss"),
        "accuracy": test.get("accuracy"),
        "balanced_accuracy": test.get("balanced_accuracy"),
        "validation_accuracy": validation.get("accuracy"),
        "neighbours": {name: _neighbour(name, link, protocol) for name, link in sorted(links.items())},
        "privacy": None if journal.spending is None else journal.spending.describe(),
        "bytes": journal.bytes(),
        "seconds": journal.seconds,
        "absences": sum(map(len, protocol.absences.values())),
        "catch_ups": protocol.catch_ups,
        "stale_bodies": protocol.stale_uses,
        "masking": federation.privacy.masking,
        "masked_skips": len(protocol.masked_skips),
        "started": started,
        "finished": protocol.phase == "done",
    }


def _neighbour(name: str, link: LinkStatus, protocol: RoundProtocol) -> Figures:
    return {
        **dataclasses.asdict(link),
        "round": protocol.known_round(name) + 1,
        "absences": len(protocol.absences.get(name, ())),
    }


def summarize(
    name: str, protocol: RoundProtocol, membership: Membership, journal: Journal, transport: Transport
) -> Figures:
    """The content of a node's `summary.json`."""
    federation = membership.own(max(protocol.round_index - 1, 0))
    lines = journal.records.lines
    last = lines[-1] if lines else {}
    absences = {name: [number + 1 for number in rounds] for name, rounds in sorted(protocol.absences.items()) if rounds}
    privacy = None if journal.spending is None else journal.spending.describe()
    silent = privacy is not None and privacy["stopped"] is not None
    skipped = sorted(set(range(1, protocol.round_index + 1)) - {line["round"] for line in lines})
    return {
        "site": name,
        "method": federation.method,
        "federation": federation.name,
        "federation_id": federation.id,
        "revision": federation.revision,
        "rounds": journal.rounds,
        "completed": protocol.round_index,
        "complete": protocol.round_index >= journal.rounds,
        "whole": not absences and not skipped and not silent,
        "neighbours": list(protocol.plan.neighbours(max(protocol.round_index - 1, 0))),
        "absences": absences,
        "skipped_rounds": skipped,
        "catch_ups": protocol.catch_ups,
        "stale_bodies": protocol.stale_uses,
        "masking": federation.privacy.masking,
        "masked_skips": [number + 1 for number in protocol.masked_skips],
        "train_loss": last.get("train_loss"),
        "validation": last.get("validation"),
        "test": last.get("test"),
        "privacy": privacy,
        "bytes": journal.bytes(),
        "seconds": journal.seconds,
        "links": {name: dataclasses.asdict(link) for name, link in sorted(transport.links().items())},
    }


def last_line(summary: Figures) -> str:
    """One sentence on how the run ended; it never passes a part of the neighbours off as all of them."""
    rounds = f"{summary['completed']} of {summary['rounds']} rounds"
    head = f"finished {rounds}" if summary["complete"] else f"stopped after {rounds}"
    if not summary["completed"]:
        return head
    remarks = [
        f"{name} was absent in {len(missed)} ({_numbers(missed)})" for name, missed in summary["absences"].items()
    ]
    if summary["skipped_rounds"]:
        remarks.append(
            f"this site itself missed {len(summary['skipped_rounds'])} ({_numbers(summary['skipped_rounds'])})"
        )
    if missed := summary["masked_skips"]:
        remarks.append(f"no sum of masked bodies came about in {len(missed)} ({_numbers(missed)})")
    if remarks:
        ending = f" with fewer neighbours than configured: {'; '.join(remarks)}"
    else:
        everyone = "every neighbour" if summary["neighbours"] else "this site, which has no neighbours,"
        ending = f"; {everyone} took part in all of them"
    return f"{head}{ending}{_silence(summary['privacy'])}"


def _silence(privacy: Figures | None) -> str:
    if privacy is None or privacy["stopped"] is None:
        return ""
    return (
        f"; its privacy budget was spent (epsilon {privacy['epsilon']:.2f} of {privacy['budget']:g}), so it trained "
        f"and sent nothing from round {privacy['stopped']} on"
    )


def _numbers(rounds: list[int]) -> str:
    shown = ", ".join(map(str, rounds[:8]))
    return f"round{'s' if len(rounds) > 1 else ''} {shown}{', ...' if len(rounds) > 8 else ''}"
