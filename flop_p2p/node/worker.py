"""What a node computes: its site's model, trained on its own data, and the body that it exchanges."""

import functools
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flop_p2p.config.federation import FederationSettings
from flop_p2p.config.site import SiteDataSettings, SiteSettings
from flop_p2p.data import FederatedData, load_site_data
from flop_p2p.errors import ConfigError, NodeError, TrainingError
from flop_p2p.gossip.fixed_point import FixedPoint
from flop_p2p.learning import (
    Learner,
    Metrics,
    Partway,
    Phase,
    PrivateLearner,
    Samples,
    SecretDraws,
    Trainee,
    build_blueprint,
    evaluate,
    find_device,
)
from flop_p2p.node.publisher import Publisher
from flop_p2p.partial import bind, flatten, save_model
from flop_p2p.transport.base import Body, OutgoingBody
from flop_p2p.wire.encodings import Masked
from flop_p2p.writing import writing

__all__ = ["Partway", "SiteModel"]

PARTS = ("validation", "test")
OPTIMIZER = "optimizer"
LOCAL = "local/"

logger = logging.getLogger(__name__)


class SiteModel:
    """The model of one member of a federation; a server has neither data nor head to train.

    It starts from the weights with which a simulation of the same settings and seed does.

    Attributes:
        body: ``[parameters]``, float32, on the model's device. The shared tensors of the model are views into it.
        head: likewise the private ones; it leaves the site in no message.
        schema_hash: SHA-256 of the body's schema, 32 bytes.
        body_hash: SHA-256 of the body before any training, 32 bytes; the same at all sites.
        samples: number of ``train``, ``validation`` and ``test`` samples.

    Raises:
        ConfigError, DataError, ModelError, SplitError: data or model cannot be used.
    """

    def __init__(self, federation: FederationSettings, site: SiteSettings) -> None:
        shape, outputs = federation.samples.shape, len(federation.samples.class_names)
        folder = site.federation.parent
        self._privacy = federation.privacy
        blueprint = build_blueprint(
            federation.model, shape, outputs, federation.seed, differential=self._privacy.differential, folder=folder
        )
        if blueprint.remark is not None:
            logger.info(blueprint.remark)
        self.name = site.name
        self.split = blueprint.split
        self._device = find_device(site.device)
        self._model = blueprint.template.to(self._device)
        self.body = flatten(self._model, self.split.body)
        self.head = flatten(self._model, self.split.head)
        bind(self._model, self.split.body, self.body)
        bind(self._model, self.split.head, self.head)
        self.schema_hash = bytes.fromhex(self.split.body.sha256)
        self.body_hash = hashlib.sha256(self.copy_of_body().data).digest()
        self._publisher = Publisher(federation.gossip, federation.seed, site.name)
        self._training = federation.training
        self._phase: Phase = "alternating" if federation.method == "p2p-flop-alt" else "joint"
        self._learner: Learner | None = None
        self.samples = dict.fromkeys(("train", *PARTS), 0)
        if federation.member(site.name).role == "site":
            data = load_site_data(_data_settings(site), federation.samples, site.name, federation.seed)
            self._learner = self._take(data, blueprint.head, federation.seed)

    def _take(self, data: FederatedData, head: frozenset[str], seed: int) -> Learner:
        """Make ``data`` those that this model is trained and evaluated on."""
        self._site = data.sites[0]
        self._samples = Samples(data, self._device)
        self.samples = {part: len(getattr(self._site, part)) for part in self.samples}
        trainee = Trainee(self._model, head, self._training)
        given = (self.name, trainee, self._samples, self._site.train, self._training, seed)
        if self._privacy.differential:  # neighbours know the seed, so nothing that protects is drawn from it
            learner = PrivateLearner(*given, privacy=self._privacy, draws=SecretDraws())
            learner.try_out()
            return learner
        return Learner(*given)

    def train(self, round_index: int, pause: Callable[[], bool], partway: Partway | None = None) -> float | Partway:
        """Train a round, counted from 0; its mean loss, or where it stopped because ``pause`` said so.

        Raises:
            TrainingError: training diverged.
        """
        return self._trainer().train_partly(round_index, self._phase, partway, pause)

    def train_head(self, rounds: int, pause: Callable[[], bool], begin: Callable[[int], bool] = lambda _: True) -> None:
        """Train the head alone for so many rounds, for a site that took over its neighbours' body.

        Args:
            pause: ends it early.
            begin: asked before each round whether so many gradient steps may be taken.

        Raises:
            TrainingError: training diverged.
        """
        for round_index in range(rounds):
            if not begin(self.steps) or not isinstance(
                self._trainer().train_partly(round_index, "head", None, pause), float
            ):
                break
        self.reset_optimizer()

    @property
    def steps(self) -> int:
        """Gradient steps of a round; 0 at a server."""
        return 0 if self._learner is None else self._learner.steps

    @property
    def sampling_rate(self) -> float | None:
        """Probability with which a record or patient takes part in a step; None without differential privacy."""
        return self._learner.rate if isinstance(self._learner, PrivateLearner) else None

    def reset_optimizer(self) -> None:
        """Begin the optimizer anew: its momentum is that of a body, or of phases, that training does not go on from."""
        if self._learner is not None:
            self._learner.trainee.optimizer.reset()

    def _trainer(self) -> Learner:
        if self._learner is None:
            raise NodeError(f"{self.name} is a server, which trains nothing")
        return self._learner

    def mix(self, own_name: str, own_weight: float, parts: Sequence[tuple[str, float, Body]]) -> None:
        """Replace the body by the weighted sum of itself and its neighbours', in ascending order of names.

        With compression it is moved towards them, see `flop_p2p.gossip.compression`.

        Args:
            parts: name, weight and body ``[parameters]`` of each neighbour.

        Raises:
            SplitError: a body has another size.
        """
        own = self.body.cpu().numpy()
        self._publisher.mix(own, own_name, own_weight, parts)
        if self.body.is_cuda:
            self.body.copy_(torch.from_numpy(own))

    def mix_masked(
        self, fixed_point: FixedPoint, own_weight: float, parts: Sequence[Masked], share: float, factor: float
    ) -> None:
        """Replace the body by the weighted sum of itself and a sum of masked bodies, see `FixedPoint.mix`.

        Raises:
            WireError: the sum cannot be one of bodies; the body is as it was.
        """
        own = self.body.cpu().numpy()
        fixed_point.mix(own, own_weight, parts, share, factor)
        if self.body.is_cuda:
            self.body.copy_(torch.from_numpy(own))

    def take_over(self, parts: Sequence[tuple[str, float, Body]]) -> None:
        """Replace the body by the weighted sum of its neighbours', and begin anew what belongs to the body before.

        Raises:
            SplitError: a body has another size.
        """
        self._publisher.forget()
        self.mix(self.name, 0.0, parts)
        self.reset_optimizer()

    def publish(self, round_index: int) -> OutgoingBody:
        """The body as it is now, in memory that nothing writes to again, encoded as was agreed on, with its SHA-256.

        Raises:
            TrainingError: a number is not finite, and the body cannot be compressed.
        """
        return self._publisher.publish(self.copy_of_body(), round_index)

    def copy_of_body(self) -> Body:
        """The body as it is now, in memory that nothing writes to again."""
        body = np.array(self.body.cpu().numpy(), dtype="<f4")
        body.setflags(write=False)
        return body

    def evaluate(self) -> dict[str, Metrics | None]:
        """How good the model is on the site's own ``validation`` and ``test`` samples; None where there are none.

        Raises:
            TrainingError: it predicts NaN or infinite values.
        """
        if self._learner is None:
            return dict.fromkeys(PARTS)
        try:
            return {
                part: evaluate(self._model, self._samples, getattr(self._site, part), self._site.train, self._training)
                for part in PARTS
            }
        except TrainingError as error:
            raise TrainingError(f"site {self.name}: {error}") from error

    def save_model(self, path: Path) -> None:
        """Write the whole model, body and head, to a safetensors file for use at this site.

        Raises:
            RunError: it cannot be written.
        """
        with writing(path):
            save_model(path, self._model, self.split, self.name)

    @functools.cached_property
    def data_hash(self) -> str:
        """SHA-256 of all samples, labels and splits of the site, in hexadecimal; empty for a server."""
        if self._learner is None:
            return ""
        digest = hashlib.sha256()
        for tensor in (self._samples.inputs, self._samples.labels):
            digest.update(tensor.cpu().numpy().data)
        for part in ("train", *PARTS):
            digest.update(np.ascontiguousarray(getattr(self._site, part)).data)
        return digest.hexdigest()

    def describe_data(self) -> str:
        """The site's own data in a few words."""
        if self._learner is None:
            return "a server has no data"
        counts = self.samples
        return f"{counts['train']:,} training, {counts['validation']:,} validation, {counts['test']:,} test samples"

    @property
    def checkpoint_bytes(self) -> int:
        """About how many bytes one checkpoint takes: the model, the state of its optimizer, and what was told."""
        optimizer = 0 if self._learner is None else self._learner.trainee.optimizer.numbers
        bodies = (1 + self._publisher.kept) * self.split.body.parameters
        return 4 * (bodies + self.split.head.parameters + optimizer)

    def tensors(self) -> dict[str, Tensor]:
        """All that it goes on from, by name, not copied: body, head, BatchNorm's counters, optimizer, what was told."""
        state = self._model.state_dict()
        tensors = {"body": self.body, "head": self.head, **self._publisher.tensors()}
        tensors |= {LOCAL + name: state[name] for name in self.split.local}
        return tensors | ({OPTIMIZER: self._learner.trainee.optimizer.state} if self._learner else {})

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over, in place, what `tensors` gave.

        Raises:
            KeyError, ValueError, RuntimeError: a tensor is missing or has another shape.
        """
        state = self._model.state_dict()
        self.body.copy_(tensors["body"])
        self.head.copy_(tensors["head"])
        self._publisher.restore(tensors)
        for name in self.split.local:
            state[name].copy_(tensors[LOCAL + name])
        if self._learner is not None:
            self._learner.trainee.optimizer.state.copy_(tensors[OPTIMIZER])


def _data_settings(site: SiteSettings) -> SiteDataSettings:
    if site.data is None:
        raise ConfigError(f"site {site.name}: there is no [data] in site.toml; name the source of its data there")
    return site.data
