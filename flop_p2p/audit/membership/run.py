"""From settings to the rows of the membership audit."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flop_p2p.audit.membership.figures import Scores, figures
from flop_p2p.audit.membership.guesses import TESTS
from flop_p2p.audit.membership.holding import Head, Holding
from flop_p2p.audit.membership.views import Position, build_views
from flop_p2p.audit.membership.worlds import Candidates, draw_candidates, train_world
from flop_p2p.config import ExperimentSettings
from flop_p2p.data import FederatedData
from flop_p2p.seeding import derive
from flop_p2p.simulation import METHODS, Simulation, load_data

Progress = Callable[[str, int, int], None]  # what is under way, worlds trained, worlds in all
Row = dict[str, Any]
Confidences = dict[tuple[Position, Head], dict[int, list[np.ndarray]]]  # of each victim, world after world
FEWEST_WORLDS = 2  # one and its opposite
EXTRA_WORLDS = 2  # the target, and the world with the opposite members, which is not among its shadows


@dataclass(frozen=True)
class Arm:
    """A method, and for gossip a topology."""

    method: str
    topology: str | None

    @property
    def label(self) -> str:
        """As tables and pictures call it."""
        return self.method if self.topology is None else f"{self.method}, {self.topology}"

    def settings(self, settings: ExperimentSettings) -> ExperimentSettings:
        """Those of its federations; without masking, which changes what is seen of the bodies but not the bodies."""
        changes: dict[str, Any] = {"method": self.method}
        changes["privacy"] = settings.privacy.model_copy(update={"masking": "none"})
        if self.topology is None:
            changes["gossip"] = settings.gossip.model_copy(update={"compression": "none"})
        else:
            changes["topology"] = settings.topology.model_copy(update={"name": self.topology})
        return settings.model_copy(update=changes)


def check_membership(settings: ExperimentSettings, data: FederatedData) -> None:
    """Refuse at once what would otherwise be found out after other methods and topologies were trained for long.

    Raises:
        FlopError: a method or topology asked for cannot be simulated, or a site has too few records.
    """
    sites = [site.split(0) for site in draw_candidates(data, FEWEST_WORLDS, settings.seed)]
    for arm in build_arms(settings):
        Simulation(arm.settings(settings), data, sites).close()


def audit_membership(
    settings: ExperimentSettings, progress: Progress, data: FederatedData | None = None
) -> Iterator[list[Row]]:
    """How well records that sites trained on are told from others, by method, topology, position, head and test.

    Every method and topology is trained ``audit.membership_shadows`` + 2 times, on other halves of all records of the
    sites, the same halves for all of them. The same settings and seed give the same rows.

    Args:
        progress: called before and after each federation.
        data: what `load_data` gives for these settings, if it was loaded already.

    Yields:
        the rows of one method and topology after another, of plain values: ``attack`` (membership), ``method``,
        ``topology``, ``holder``, ``distance``, ``masking``, ``head``, ``test``, ``victims``, ``shadows``, ``accuracy``
        of the sites' own models on members and others, and what `figures` gives.

    Raises:
        FlopError: the settings cannot be simulated, or a site has too few records.
    """
    data = load_data(settings) if data is None else data
    worlds = settings.audit.membership_shadows + EXTRA_WORLDS
    candidates = draw_candidates(data, worlds, settings.seed)
    arms = build_arms(settings)
    check_membership(settings, data)
    for number, arm in enumerate(arms):

        def told(done: int, arm: Arm = arm, before: int = number * worlds) -> None:
            progress(f"membership: {arm.label}", before + done, len(arms) * worlds)

        yield _attack(arm, arm.settings(settings), data, candidates, worlds, told)


def build_arms(settings: ExperimentSettings) -> list[Arm]:
    """Every method asked for, those that gossip with every topology asked for."""
    topologies = settings.audit.membership_topologies or dict.fromkeys((settings.topology.name, "ring", "full"))
    arms = []
    for method in settings.audit.membership_methods:
        gossips = METHODS[method].exchange == "gossip"
        arms += [Arm(method, topology) for topology in (topologies if gossips else [None])]
    return arms


def _attack(
    arm: Arm,
    settings: ExperimentSettings,
    data: FederatedData,
    candidates: Sequence[Candidates],
    worlds: int,
    told: Callable[[int], None],
) -> list[Row]:
    """The rows of one method and topology."""
    confidences: Confidences = defaultdict(lambda: defaultdict(list))
    accuracies = []
    told(0)
    for number in range(worlds):
        world = train_world(settings, data, candidates, number, workers=0)
        holding = Holding(world)
        for view in build_views(world.simulation):
            for head, found in holding.confidences(view, candidates[view.victim].indices):
                confidences[view.position, head][view.victim].append(found)
        accuracies.append(np.mean(world.accuracy, axis=0))
        told(number + 1)
    members, others = np.mean(accuracies, axis=0).tolist()
    common = {
        "attack": "membership",
        "method": arm.method,
        "topology": arm.topology,
        "shadows": worlds - EXTRA_WORLDS,
        "accuracy": {"members": members, "non_members": others},
    }
    return [common | row for key, found in confidences.items() for row in _rows(*key, found, candidates, settings.seed)]


def _rows(
    position: Position,
    head: Head,
    confidences: dict[int, list[np.ndarray]],
    candidates: Sequence[Candidates],
    seed: int,
) -> list[Row]:
    """One row a test."""
    rows = []
    for name, test in TESTS.items():
        parts = []
        for victim, found in confidences.items():
            site = candidates[victim]
            score = test(np.stack(found), site.member)
            patient = np.broadcast_to(site.patients, score.shape)
            parts.append(Scores(score.ravel(), site.member.ravel(), patient.ravel()))
        told_by = {
            "holder": position.holder,
            "distance": position.distance,
            "masking": "pairwise" if position.masked else "none",
            "head": head,
            "test": name,
            "victims": len(parts),
        }
        rows.append(told_by | figures(_together(parts), derive(seed, "membership intervals")))
    return rows


def _together(parts: Sequence[Scores]) -> Scores:
    """The guesses on several victims; patients of different sites count as different ones."""
    starts = np.cumsum([0, *(part.patient.max() + 1 for part in parts[:-1])])
    return Scores(
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.member for part in parts]),
        np.concatenate([part.patient + start for part, start in zip(parts, starts, strict=True)]),
    )
