"""What an attacker can do with a body that it holds: put a head on it, and ask it about records."""

import copy
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from flop_p2p.audit.membership.views import View
from flop_p2p.audit.membership.worlds import World
from flop_p2p.data.dataset import Indices, Task
from flop_p2p.learning import predict
from flop_p2p.partial import Binding

Head = Literal["shared", "own", "fitted", "known"]
INVERSE_PENALTY = 0.1  # C of the logistic regression on standardized features


class Holding:
    """The bodies and heads of one world, and one model to put them into."""

    def __init__(self, world: World) -> None:
        simulation = world.simulation
        self._world = world
        self._samples = simulation.samples
        self._model = copy.deepcopy(simulation.blueprint.template)
        self._body = Binding(self._model, simulation.blueprint.split.body)
        self._head = Binding(self._model, simulation.blueprint.split.head)
        self._features: list[Tensor] = []
        _last_layer(self._model, simulation.blueprint.head).register_forward_pre_hook(self._keep)

    def confidences(self, view: View, candidates: Indices) -> Iterator[tuple[Head, np.ndarray]]:
        """How sure the body that ``view`` tells of is of the labels of ``candidates``, with each head there is for it.

        A full model brings its head (`shared`), on a body the attacker puts that of its `own` site. On either it may
        put a linear one, `fitted` to the candidates and their labels, whoever of them was a member; without a second
        class among them there is none. `known` is the victim's own head: more than any neighbour has, and what a
        model that is given away has.

        Raises:
            TrainingError: predictions are not finite.
        """
        published, heads = self._world.published, self._world.heads
        self._body.to(torch.from_numpy(view.weights).float().to(published.device) @ published)
        labels = self._samples.labels[self._samples.positions(candidates)].cpu().numpy()
        is_full = not heads.shape[1]
        if view.position.holder != "anyone":
            if not is_full:
                self._head.to(heads[view.attacker].clone())
            logits = self._ask(candidates)
            yield "shared" if is_full else "own", confidence(logits, labels, self._samples.task)
            fitted = fitted_confidence(torch.cat(self._features).flatten(1).cpu().numpy(), labels)
            if fitted is not None:
                yield "fitted", fitted
        if not is_full:
            self._head.to(heads[view.victim].clone())
            yield "known", confidence(self._ask(candidates), labels, self._samples.task)

    def _ask(self, candidates: Indices) -> np.ndarray:
        self._features.clear()
        return predict(self._model, self._samples, candidates)

    def _keep(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._features.append(inputs[0])


def _last_layer(model: nn.Module, head: frozenset[str]) -> nn.Module:
    """The last layer that has parameters in the head; what comes into it is what a fitted head sees."""
    parents = [name.rpartition(".")[0] for name, _ in model.named_parameters() if name in head]
    return model.get_submodule(parents[-1])


def fitted_confidence(features: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """The confidence of a logistic regression in the labels that it was fitted to, as `confidence`.

    The attacker needs no head for it, and no training data but the records in question: those that the body was trained
    on are fitted better than the others.

    Args:
        features: what the body makes of the records, ``[samples, features]``; standardized before the fit.
        labels: ``[samples]``, or ``[samples, outputs]`` for ``multilabel``, of which constant ones are left out.

    Returns:
        None where the labels tell nothing apart.
    """
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    if labels.ndim == 2:
        varied = labels[:, (labels > 0).any(axis=0) & (labels <= 0).any(axis=0)]
        if not varied.shape[1]:
            return None
        logits = np.stack([_fitted_logits(scaled, column > 0)[:, 1] for column in varied.T], axis=1)
        return confidence(logits, varied, "multilabel")
    classes, codes = np.unique(labels, return_inverse=True)
    return confidence(_fitted_logits(scaled, codes), codes, "multiclass") if len(classes) > 1 else None


def _fitted_logits(scaled: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Logits ``[samples, classes]`` for the classes of ``codes``, ascending."""
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(scaled, codes)
    decision: np.ndarray = model.decision_function(scaled)
    return decision if decision.ndim == 2 else np.stack([np.zeros_like(decision), decision], axis=1)


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
