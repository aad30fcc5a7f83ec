"""Many methods, topologies and seeds on the same data, and what can be said about their differences."""

from flop_p2p.comparison.plan import Arm, Plan, Run, build_plan
from flop_p2p.comparison.results import ArmResult, Comparison, to_json
from flop_p2p.comparison.runner import Watcher, compare
from flop_p2p.comparison.statistics import Difference, Estimate

__all__ = [
    "Arm",
    "ArmResult",
    "Comparison",
    "Difference",
    "Estimate",
    "Plan",
    "Run",
    "Watcher",
    "build_plan",
    "compare",
    "to_json",
]
