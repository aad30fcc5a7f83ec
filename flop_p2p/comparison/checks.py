"""What can be found out before hours of computing: whether every run of a plan can be built at all."""

from collections.abc import Callable

from flop_p2p.comparison.plan import Plan
from flop_p2p.data import FederatedData
from flop_p2p.simulation import METHODS, Simulation
from flop_p2p.simulation.exchange import build_exchange
from flop_p2p.simulation.late import draw_late_sites


def check(plan: Plan, data_of: Callable[[int], FederatedData]) -> None:
    """Build what each run starts from: data and schedules for every seed, models for the first.

    Args:
        data_of: the data of a seed; the first seed is asked last.

    Raises:
        FlopError: some run cannot begin; the error says why.
    """
    lr = plan.settings.training.lr
    for seed in reversed(plan.seeds):
        data = data_of(seed)
        for arm in plan.arms:
            settings = plan.run(arm, seed, lr).settings
            sites, _ = draw_late_sites(settings, data.sites)
            if seed == plan.seeds[0]:
                Simulation(settings, data, sites)
            else:
                counts = [len(site.train) for site in sites]
                build_exchange(METHODS[arm.method], settings, [site.name for site in sites], counts)
