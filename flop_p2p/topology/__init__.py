"""Who exchanges with whom in which round, and with which weights."""

from flop_p2p.topology.build import build_schedule, check_compression, federation_schedule, file_sites
from flop_p2p.topology.families import FAMILIES, Family
from flop_p2p.topology.schedules import Schedule

__all__ = ["FAMILIES", "Family", "Schedule", "build_schedule", "check_compression", "federation_schedule", "file_sites"]
