"""What a neighbour could learn: attacks on the user's own model and data, and how far they get."""

from flop_p2p.audit.run import Audit, audit_leakage

__all__ = ["Audit", "audit_leakage"]
