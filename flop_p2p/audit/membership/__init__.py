"""Membership inference: whether a record was among those that a site trained on, from what another one holds of it."""

from flop_p2p.audit.membership.run import audit_membership, check_membership

__all__ = ["audit_membership", "check_membership"]
