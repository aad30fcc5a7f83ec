"""Sites that join after training: they adopt a body and train only their own head."""

import copy
from collections.abc import Sequence

from torch import nn

from flop_p2p.config import ExperimentSettings
from flop_p2p.data import SiteSplit
from flop_p2p.errors import ConfigError
from flop_p2p.learning import Metrics, Phase, PrivateLearner
from flop_p2p.partial import bind
from flop_p2p.seeding import derive
from flop_p2p.simulation.engine import Simulation
from flop_p2p.simulation.spending import rounds_within_budget
from flop_p2p.topology import file_sites


def draw_late_sites(
    settings: ExperimentSettings, sites: Sequence[SiteSplit]
) -> tuple[tuple[SiteSplit, ...], tuple[SiteSplit, ...]]:
    """The sites that take part, and those that the seed draws to join late, both ascending by name.

    Raises:
        ConfigError: no two sites would be left to take part, or a topology file names all that do.
    """
    if settings.late_sites and len(sites) - settings.late_sites < 2:
        raise ConfigError(f"--late-sites {settings.late_sites} leaves fewer than 2 of {len(sites)} sites to take part")
    if settings.late_sites and file_sites(settings.topology) is not None:
        raise ConfigError(
            f"--late-sites {settings.late_sites}: {settings.topology.name} names the sites that take part; "
            "take a topology without names"
        )
    late = set(derive(settings.seed, "late").choice(len(sites), settings.late_sites, replace=False).tolist())
    present = tuple(site for position, site in enumerate(sites) if position not in late)
    return present, tuple(sites[position] for position in sorted(late))


def join_late(simulation: Simulation, late: Sequence[SiteSplit]) -> dict[str, Metrics]:
    """Let each late site adopt the body of a site drawn by the seed, its neighbour, and train its head.

    It trains for as many rounds as the others did, or as its own privacy budget allows. Where nothing is exchanged
    (`local`), there is no body to adopt and the site trains its whole model.

    Returns:
        metrics of each late site on its own test split.
    """
    shared = simulation.ranks.share(lambda: _join_own(simulation, late))
    results = {name: metrics for some in shared for name, metrics in some.items()}
    return {site.name: results[site.name] for site in late}


def _join_own(simulation: Simulation, late: Sequence[SiteSplit]) -> dict[str, Metrics]:
    """As `join_late`, for the late sites whose neighbours this rank holds."""
    results = {}
    rows = {int(position): row for row, position in enumerate(simulation.own)}
    for site in late:
        draw = derive(simulation.settings.seed, "adopt", site.name)
        row = rows.get(int(draw.integers(simulation.exchange.placement.sites)))
        if row is None:
            continue
        model = _adopted_model(simulation, row)
        if simulation.method.trains:
            phase: Phase = "joint" if _is_local(simulation) else "head"
            learner, rounds = simulation.work.newcomer(site, model), simulation.progress.round
            if isinstance(learner, PrivateLearner):
                rounds = rounds_within_budget(learner, simulation.settings.privacy, rounds)
            for round_index in range(rounds):
                learner.train(round_index, phase)
        results[site.name] = simulation.work.evaluate_model(model, site, site.test, simulation.progress.round)
    return results


def _is_local(simulation: Simulation) -> bool:
    return simulation.method.exchange == "none" and not simulation.method.pooled


def _adopted_model(simulation: Simulation, row: int) -> nn.Module:
    """A new model with the body of this row and the initial head; all of the pooled model, which has one head."""
    model = copy.deepcopy(simulation.blueprint.template)
    if not _is_local(simulation):
        bind(model, simulation.blueprint.split.body, simulation.population.bodies[row].clone())
    if simulation.method.pooled:
        bind(model, simulation.blueprint.split.head, simulation.population.heads[0].clone())
    return model
