"""What happens to the bodies between two rounds of training: nothing, a server's average, or gossip.

Traffic is counted in bytes of bodies sent; message headers are not simulated. Only gossip is compressed.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from flop_p2p.config import ExperimentSettings, GossipSettings
from flop_p2p.errors import ConfigError, TrainingError
from flop_p2p.gossip.compression import move, publish, rounding
from flop_p2p.gossip.fixed_point import FixedPoint
from flop_p2p.learning import steps_of_round
from flop_p2p.partial import mix_rows
from flop_p2p.seeding import derive
from flop_p2p.simulation.boundary import Boundary
from flop_p2p.simulation.memory import shared_rows
from flop_p2p.simulation.methods import Method
from flop_p2p.simulation.mixing import (
    BLOCK_BYTES,
    average_in_place,
    mix_in_place,
    mixing_tensor,
    without_few_senders,
    without_senders,
)
from flop_p2p.simulation.placement import Placement, place, together
from flop_p2p.simulation.ranks import ALONE, Ranks
from flop_p2p.topology import Schedule, build_schedule, check_compression, check_masking
from flop_p2p.topology.analysis import edges_between
from flop_p2p.wire.encodings import AGREED, Numbers, encoded_bytes

Silent = tuple[int, ...]  # positions of sites whose privacy budget is spent, ascending
NUMBER_BYTES = 4  # float32
CROSSING_BYTES = 64 * 2**20  # at most so much is held of what comes from other ranks
LEAST_WIDTH = 4096  # numbers of a body that travel at a time, however many sites there are
FEW_NEIGHBOURS = 8  # weights a row, the own one included; with more the matrix product is much faster


class Exchange(Protocol):
    """One way to exchange bodies. Rounds are counted from 0; positions are those among the sites of all ranks."""

    placement: Placement  # of the sites that it exchanges the bodies of
    participants: int  # sites, and one more where there is a server
    doubly_stochastic: bool | None  # None where no topology is used

    def trains(self, round_index: int) -> np.ndarray:
        """Positions of the sites that train in this round, ascending."""

    def mix(self, bodies: Tensor, round_index: int, silent: Silent = ()) -> None:
        """Exchange ``bodies`` ``[own sites, parameters]`` in place; those ``silent`` send nothing, and receive.

        Raises:
            RunError: another rank was lost.
        """

    def messages(self, round_index: int, silent: Silent = ()) -> np.ndarray:
        """Bodies sent plus received in this round, a participant; the server comes last."""

    def message_bytes(self, parameters: int, round_index: int) -> int:  # noqa: ARG002
        """Bytes of one body of so many parameters in this round."""
        return NUMBER_BYTES * parameters

    def state(self, bodies: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """What it keeps from round to round beside ``bodies``, as many rows each, by name; checkpoints hold it."""
        return {}


class NoExchange(Exchange):
    """Every site keeps its body."""

    doubly_stochastic: bool | None = None

    def __init__(self, sites: int, placement: Placement | None = None) -> None:
        self.placement = placement or together(sites)
        self.participants = sites

    def trains(self, round_index: int) -> np.ndarray:  # noqa: ARG002
        """All sites."""
        return np.arange(self.participants)

    def mix(self, bodies: Tensor, round_index: int, silent: Silent = ()) -> None:
        """Leave everything as it is."""

    def messages(self, round_index: int, silent: Silent = ()) -> np.ndarray:  # noqa: ARG002
        """None at all."""
        return np.zeros(self.participants, dtype=np.int64)


class ServerExchange(Exchange):
    """A server averages the bodies of the sites that trained and hands the mean to all (McMahan et al. 2017).

    Args:
        weights: weight of each site, ``[sites]``: ones, or numbers of training samples.
        fraction: share of sites drawn to train in a round; at least one trains.
    """

    doubly_stochastic: bool | None = None

    def __init__(
        self, weights: Sequence[float], fraction: float, seed: int, placement: Placement | None = None
    ) -> None:
        self._weights = np.asarray(weights, dtype=np.float64)
        self.placement = placement or together(len(self._weights))
        self._count = max(1, round(fraction * len(self._weights)))
        self._seed = seed
        self.participants = len(self._weights) + 1

    def trains(self, round_index: int) -> np.ndarray:
        """The sites that the server draws for this round."""
        draw = derive(self._seed, "participation", round_index)
        return np.sort(draw.choice(len(self._weights), self._count, replace=False))

    def mix(self, bodies: Tensor, round_index: int, silent: Silent = ()) -> None:
        """Every row becomes the weighted mean of the rows that trained and send."""
        chosen = np.setdiff1d(self.trains(round_index), silent)
        if not len(chosen):
            return
        weights = np.zeros_like(self._weights)
        weights[chosen] = self._weights[chosen] / self._weights[chosen].sum()
        own = torch.from_numpy(weights[self.placement.own]).float().to(bodies.device)
        average_in_place(bodies, own, self.placement.ranks)

    def messages(self, round_index: int, silent: Silent = ()) -> np.ndarray:
        """One upload from each site that trained, one download to every site."""
        messages = np.ones(self.participants, dtype=np.int64)
        messages[np.setdiff1d(self.trains(round_index), silent)] += 1
        messages[-1] = messages[:-1].sum()
        return messages


class GossipExchange(Exchange):
    """Every site mixes what it receives from its neighbours: ``X <- W X``."""

    def __init__(self, schedule: Schedule, placement: Placement) -> None:
        self._schedule = schedule
        self.placement = placement
        self._matrix: csr_array | None = None
        self._round: tuple[int, Silent] | None = None
        self._hushed: tuple[csr_array, Silent, csr_array] | None = None
        self.participants = len(schedule.sites)
        self.doubly_stochastic: bool | None = schedule.doubly_stochastic

    def trains(self, round_index: int) -> np.ndarray:  # noqa: ARG002
        """All sites."""
        return np.arange(self.participants)

    def mix(self, bodies: Tensor, round_index: int, silent: Silent = ()) -> None:
        """Mix with the matrix of this round: where sites have few neighbours, to the bit as their nodes would.

        What comes from other ranks comes block by block.
        """
        if (round_index, silent) != self._round:
            self._prepare(self._mixing(round_index, silent), bodies.device)
            self._round = (round_index, silent)
        crosses = self.placement.ranks.count > 1
        width = max(LEAST_WIDTH, CROSSING_BYTES // (4 * self.participants)) if crosses else bodies.shape[1]
        for block in torch.split(bodies, max(1, width), dim=1):
            others = self._boundary.exchange(block) if crosses else None
            if self._weights is None:
                mix_rows(block.numpy(), self._boundary.matrix, None if others is None else others.numpy())
            else:
                mix_in_place(block, self._weights, others)

    def _mixing(self, round_index: int, silent: Silent) -> csr_array:
        """The matrix of this round; a static topology gives the same one as long as the same sites are silent."""
        matrix = self._schedule.mixing(round_index)
        if not silent:
            return matrix
        if self._hushed is None or self._hushed[0] is not matrix or self._hushed[1] != silent:
            self._hushed = (matrix, silent, without_senders(matrix, silent))
        return self._hushed[2]

    def _prepare(self, matrix: csr_array, device: torch.device) -> None:
        if matrix is not self._matrix:  # a static topology gives the same one each time
            self._matrix, self._boundary = matrix, Boundary(matrix, self.placement)
            few = device.type == "cpu" and matrix.nnz <= FEW_NEIGHBOURS * self.participants
            self._weights = None if few else mixing_tensor(self._boundary.matrix, device)

    def messages(self, round_index: int, silent: Silent = ()) -> np.ndarray:
        """One body along every edge of this round."""
        edges = edges_between(self._mixing(round_index, silent))
        received: np.ndarray = np.diff(edges.indptr)
        return received + np.bincount(edges.indices, minlength=self.participants)


class CompressedExchange(GossipExchange):
    """Every site moves towards what it and its neighbours told of their bodies: ``X <- X + step * (W P - P)``.

    P ``[sites, parameters]`` are the public bodies of `flop_p2p.gossip.compression`. They take as much memory as the
    bodies, and with top-k they are kept from round to round.

    Raises:
        TopologyError: the schedule does not go with the compression.
    """

    def __init__(self, schedule: Schedule, placement: Placement, gossip: GossipSettings, seed: int) -> None:
        super().__init__(schedule, placement)
        check_compression(gossip, schedule)
        self._gossip = gossip
        self._seed = seed
        self._public: Tensor | None = None

    def state(self, bodies: Tensor) -> dict[str, Tensor]:
        """With top-k the public bodies, ``[own sites, parameters]``, on the CPU."""
        if self._gossip.compression != "top-k":
            return {}
        self._public = shared_rows(len(bodies), bodies.shape[1], torch.device("cpu"))
        return {"public": self._public}

    def mix(self, bodies: Tensor, round_index: int, silent: Silent = ()) -> None:
        """Publish, then move towards the mixed public bodies: to the bit as the nodes would, where `mix_rows` does."""
        own = bodies.cpu().numpy()
        public = np.empty_like(own) if self._public is None else self._public.numpy()
        with self.placement.ranks.together():
            self._publish(own, public, round_index)
        width = max(1, BLOCK_BYTES // (4 * self.participants))  # the same at all ranks
        for start in range(0, own.shape[1], width):
            block = slice(start, start + width)
            mixed = torch.from_numpy(public[:, block].copy())
            super().mix(mixed, round_index, silent)
            move(own[:, block], public[:, block], mixed.numpy(), self._gossip)
        if bodies.device.type != "cpu":
            bodies.copy_(torch.from_numpy(own))

    def _publish(self, own: Numbers, public: Numbers, round_index: int) -> None:
        """Replace each row of ``public``."""
        known = self._gossip.compression == "top-k" and round_index > 0
        for row, position in enumerate(self.placement.own):
            draw = rounding(self._seed, self._schedule.sites[position], round_index)
            public[row] = publish(own[row], public[row] if known else None, self._gossip, draw).public

    def message_bytes(self, parameters: int, round_index: int) -> int:
        """Those of the encoding; with top-k the first message is a whole body."""
        encodings = AGREED[self._gossip.compression]
        return encoded_bytes(encodings[-1] if round_index else encodings[0], parameters, self._gossip.top_k)


class MaskedExchange(GossipExchange):
    """As gossip, in the fixed-point numbers of masked bodies: to the bit what nodes mix, whose masks cancel.

    Raises:
        TopologyError: a site receives from one other only.
    """

    def __init__(self, schedule: Schedule, placement: Placement, limit: float) -> None:
        super().__init__(schedule, placement)
        check_masking(schedule)
        self._fixed_point = FixedPoint(limit)

    def mix(self, bodies: Tensor, round_index: int, silent: Silent = ()) -> None:
        """Every row becomes its own part and the sum of the others', rounded one by one.

        Raises:
            TrainingError: a number is beyond the range of the fixed-point numbers.
        """
        own = bodies.cpu().numpy()
        with self.placement.ranks.together():
            for body, position in zip(own, self.placement.own, strict=True):
                if position not in silent:
                    self._check(body, self._schedule.sites[position])
        self._prepare(self._mixing(round_index, silent), bodies.device)
        crosses = self.placement.ranks.count > 1
        width = max(1, BLOCK_BYTES // (4 * self.participants))  # the same at all ranks
        for start in range(0, own.shape[1], width):
            block = own[:, start : start + width]
            others = self._boundary.exchange(torch.from_numpy(block)).numpy() if crosses else block[:0]
            self._mix_block(block, np.concatenate([block, others]))
        if bodies.device.type != "cpu":
            bodies.copy_(torch.from_numpy(own))

    def _mixing(self, round_index: int, silent: Silent) -> csr_array:
        """No sum of few bodies is formed: to whom too few still send, none is sent, and it keeps its own."""
        matrix = super()._mixing(round_index, silent)
        return without_few_senders(matrix, self._schedule.mixing(round_index)) if silent else matrix

    def _mix_block(self, own: Numbers, bodies: Numbers) -> None:
        matrix = self._boundary.matrix
        for row, mine in enumerate(own):
            entries = slice(matrix.indptr[row], matrix.indptr[row + 1])
            weights = dict(zip(matrix.indices[entries], matrix.data[entries], strict=True))
            weight = weights.pop(row, 0.0)
            parts = [self._fixed_point.encode(bodies[other], weights[other]) for other in weights]
            if parts:
                self._fixed_point.mix(mine, weight, parts, sum(weights.values()))

    def _check(self, body: Numbers, site: str) -> None:
        try:
            self._fixed_point.check(body)
        except TrainingError as error:
            raise TrainingError(f"site {site}: {error}") from error


def build_exchange(
    method: Method, settings: ExperimentSettings, sites: Sequence[str], samples: Sequence[int], ranks: Ranks = ALONE
) -> Exchange:
    """The exchange of ``method`` over ``sites``, spread over ``ranks``, with so many training ``samples`` each.

    Raises:
        ConfigError: compression or masking is set for a method without gossip, or several ranks for one pooled model.
        RunError: there are more ranks than sites.
        TopologyError: the topology does not exist for these sites, cannot be weighted by samples, or does not go with
            compression or masking.
    """
    if method.exchange != "gossip" and settings.gossip.compression != "none":
        raise ConfigError(f"{method.name} does not gossip, and only gossip is compressed; leave --compression out")
    if method.exchange != "gossip" and settings.privacy.masking != "none":
        raise ConfigError(f"{method.name} does not gossip, and only gossip is masked; leave --masking out")
    steps = [steps_of_round(count, settings.training) for count in samples]
    if method.exchange == "gossip":
        schedule = build_schedule(settings.topology, sites, samples, settings.seed)
        placement = place(ranks, steps, schedule)
        if settings.gossip.compression != "none":
            return CompressedExchange(schedule, placement, settings.gossip, settings.seed)
        if settings.privacy.masking == "pairwise":
            return MaskedExchange(schedule, placement, settings.privacy.masking_range)
        return GossipExchange(schedule, placement)
    if method.exchange == "server":
        weights = samples if settings.topology.weighting == "samples" else [1] * len(sites)
        return ServerExchange(weights, settings.training.participation, settings.seed, place(ranks, steps))
    if method.pooled and ranks.count > 1:
        raise ConfigError(f"{method.name} trains one model in one process; leave --engine torchrun out")
    return NoExchange(1) if method.pooled else NoExchange(len(sites), place(ranks, steps))
