"""How good a site's model is on samples: predictions, with the site's own class prior where training used it."""

import numpy as np
from torch import nn

from flop_p2p.config import TrainingSettings
from flop_p2p.learning.evaluation import predict
from flop_p2p.learning.metrics import Metrics, evaluate_logits
from flop_p2p.learning.objective import log_prior
from flop_p2p.learning.samples import Samples


def evaluate(
    model: nn.Module, samples: Samples, indices: np.ndarray, train: np.ndarray, settings: TrainingSettings
) -> Metrics | None:
    """How good ``model`` is on the samples at ``indices``; None where there are none.

    Args:
        train: positions of the site's training samples, whose class prior counts.

    Raises:
        TrainingError: a logit is NaN or infinite.
    """
    return score(predict(model, samples, indices), samples, indices, train, settings) if len(indices) else None


def score(
    logits: np.ndarray | None, samples: Samples, indices: np.ndarray, train: np.ndarray, settings: TrainingSettings
) -> Metrics:
    """The figures of ``logits`` ``[indices, outputs]``, or of guessing by the prior alone where there are none."""
    labels = samples.labels[samples.positions(indices)].cpu().numpy()
    if logits is None:
        return evaluate_logits(np.tile(_prior(samples, train), (len(indices), 1)), labels, samples.task)
    prior = _prior(samples, train) if settings.head_loss == "logit-adjusted" else None
    return evaluate_logits(logits, labels, samples.task, prior)


def _prior(samples: Samples, train: np.ndarray) -> np.ndarray:
    prior: np.ndarray = log_prior(samples.labels[samples.positions(train)], samples).cpu().numpy()
    return prior
