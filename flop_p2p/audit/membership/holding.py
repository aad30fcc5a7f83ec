"""What an attacker can do with a body that it holds: put a head on it, and ask it about records."""

import copy
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor

from flop_p2p.audit.membership.views import View
from flop_p2p.audit.membership.worlds import World
from flop_p2p.config import TrainingSettings
from flop_p2p.data.dataset import Indices, Task
from flop_p2p.learning import Learner, Trainee, predict
from flop_p2p.partial import Binding
from flop_p2p.seeding import derive_int

Head = Literal["shared", "surrogate", "known"]


class Holding:
    """The bodies and heads of one world, and one model to put them into.

    Args:
        head_epochs: passes over its own data in which an attacker fits its head to a body.
    """

    def __init__(self, world: World, head_epochs: int) -> None:
        simulation = world.simulation
        self._world = world
        self._samples = simulation.samples
        self._model = copy.deepcopy(simulation.blueprint.template)
        self._body = Binding(self._model, simulation.blueprint.split.body)
        self._head = Binding(self._model, simulation.blueprint.split.head)
        self._epochs = head_epochs

    def confidences(self, view: View, candidates: Indices) -> Iterator[tuple[Head, np.ndarray]]:
        """How sure the body that ``view`` tells of is of the labels of ``candidates``, with each head there is for it.

        Full models bring their head. On a body the attacker puts a surrogate: the head of its own site, trained on
        with its own training data and the body frozen. `known` is the victim's own head: more than any attacker has, and what a
        model that is given away has.

        Raises:
            TrainingError: the head diverged, or predictions are not finite.
        """
        weights = torch.from_numpy(view.weights).float().to(self._world.published.device)
        self._body.to(weights @ self._world.published)
        heads = self._world.heads
        if not heads.shape[1]:
            yield "shared", self._ask(candidates)
            return
        if view.position.holder != "anyone":
            self._fit(view, heads[view.attacker].clone())
            yield "surrogate", self._ask(candidates)
        self._head.to(heads[view.victim].clone())
        yield "known", self._ask(candidates)

    def _fit(self, view: View, head: Tensor) -> None:
        """Train ``head``, in place, on the attacker's own records; the body stays as it is."""
        self._head.to(head)
        if not self._epochs:
            return
        simulation = self._world.simulation
        site = simulation.sites[view.attacker]
        settings = _of_heads(simulation.settings.training, self._epochs)
        trainee = Trainee(self._model, simulation.blueprint.head, settings)
        seed = derive_int(simulation.settings.seed, "surrogate head", view.victim, view.attacker)
        Learner(site.name, trainee, self._samples, site.train, settings, seed).train(0, "head")

    def _ask(self, candidates: Indices) -> np.ndarray:
        logits = predict(self._model, self._samples, candidates)
        labels = self._samples.labels[self._samples.positions(candidates)].cpu().numpy()
        return confidence(logits, labels, self._samples.task)


def _of_heads(settings: TrainingSettings, epochs: int) -> TrainingSettings:
    """The settings of training, for so many passes in a single round at full learning rate."""
    return settings.model_copy(update={"local_epochs": epochs, "local_steps": None, "schedule": "constant"})


def confidence(logits: np.ndarray, labels: np.ndarray, task: Task) -> np.ndarray:
    """The confidence in the true label p on the scale of logits, log(p / (1 - p)), float64 ``[samples]``.

    Carlini et al. 2022, equation 4 and the stable form of section VI-A. It is a rising function of -loss, so that a
    threshold on either is the same attack. Of several labels p is the geometric mean over them.

    Args:
        logits: ``[samples, outputs]``.
        labels: ``[samples]``, or ``[samples, outputs]`` for ``multilabel``.
    """
    logits = logits.astype(np.float64)
    if task == "multilabel":
        loss = np.logaddexp(0, np.where(labels > 0, -logits, logits)).mean(axis=1)
        several: np.ndarray = -np.log(np.expm1(loss))
        return several
    true = np.take_along_axis(logits, labels[:, None], axis=1)
    others = logits.copy()
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    single: np.ndarray = true[:, 0] - logsumexp(others, axis=1)
    return single
