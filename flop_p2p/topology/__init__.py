"""Who exchanges with whom in which round, and with which weights."""

from flop_p2p.topology.build import build_schedule, federation_schedule, file_sites
from flop_p2p.topology.checks import check_compression, check_masking, fewest_senders
from flop_p2p.topology.families import FAMILIES, Family
from flop_p2p.topology.schedules import Schedule

__all__ = [
    "FAMILIES",
    "Family",
    "Schedule",
    "build_schedule",
    "check_compression",
    "check_masking",
    "federation_schedule",
    "fewest_senders",
    "file_sites",
]
