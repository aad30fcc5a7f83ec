"""How good predictions are: from logits to the figures of `metrics.jsonl`.

The figures are scikit-learn's, which the tests compare. Its functions take 10 ms a call on splits of a small
hospital, several times a forward pass, so they are computed here from a confusion matrix and from ranks.
"""

from typing import Any

import numpy as np
from scipy.special import expit, softmax

from flop_p2p.data.dataset import Task

Metrics = dict[str, Any]


def evaluate_logits(logits: np.ndarray, labels: np.ndarray, task: Task, prior: np.ndarray | None = None) -> Metrics:
    """Accuracy, balanced accuracy, AUROC, macro F1, calibration error and per-class recall.

    Classes absent from ``labels`` are left out of the balanced figures; an undefined AUROC is None.
    With a ``prior`` (logit adjustment) the site's prior is added for everything but ``balanced_accuracy``
    and ``per_class_recall``, which are decisions without it; ``accuracy_without_prior`` and
    ``balanced_accuracy_with_prior`` are reported beside them.

    Args:
        logits: ``[samples, outputs]``.
        labels: ``[samples]``, or ``[samples, outputs]`` for ``multilabel``.
        prior: offset ``[outputs]`` that training added to the logits, or None.
    """
    logits = logits.astype(np.float64)  # float32 makes all probabilities above 1 - 6e-8 equal, ties for the AUROC
    score = _multilabel if task == "multilabel" else _single_label
    metrics = score(logits if prior is None else logits + prior, labels)
    if prior is not None:
        plain = score(logits, labels)
        metrics["balanced_accuracy_with_prior"] = metrics["balanced_accuracy"]
        metrics["accuracy_without_prior"] = plain["accuracy"]
        metrics |= {key: plain[key] for key in ("balanced_accuracy", "per_class_recall")}
    return metrics


def _single_label(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    outputs = logits.shape[1]
    probabilities = softmax(logits, axis=1)
    predicted = logits.argmax(axis=1)
    confusion = np.bincount(labels * outputs + predicted, minlength=outputs**2).reshape(outputs, outputs)
    correct, actual = np.diag(confusion), confusion.sum(axis=1)
    present = actual > 0
    recall = correct[present] / actual[present]
    f1 = 2 * correct[present] / (actual + confusion.sum(axis=0))[present]
    per_class: list[float | None] = [None] * outputs
    for index, value in zip(np.flatnonzero(present), recall, strict=True):
        per_class[index] = float(value)
    one_hot = labels[:, None] == np.arange(outputs)
    columns = [1] if outputs == 2 else range(outputs)
    return {
        "accuracy": float(correct.sum() / len(labels)),
        "balanced_accuracy": float(recall.mean()),
        "auroc": _auroc(one_hot[:, columns], probabilities[:, columns]),
        "macro_f1": float(f1.mean()),
        "calibration_error": calibration_error(probabilities.max(axis=1), predicted == labels),
        "per_class_recall": per_class,
    }


def _multilabel(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    truth = labels > 0.5
    predicted = logits > 0
    probabilities = expit(logits)
    hits = (truth & predicted).sum(axis=0)
    positive, negative = truth.sum(axis=0), (~truth).sum(axis=0)
    recall = [float(h / p) if p else None for h, p in zip(hits, positive, strict=True)]
    specificity = [
        float(c / n) if n else None for c, n in zip((~truth & ~predicted).sum(axis=0), negative, strict=True)
    ]
    balanced = [np.mean([r, s]) for r, s in zip(recall, specificity, strict=True) if r is not None and s is not None]
    present = positive > 0
    f1 = 2 * hits[present] / (positive + predicted.sum(axis=0))[present]
    confident = np.where(predicted, probabilities, 1 - probabilities)
    return {
        "accuracy": float((truth == predicted).mean()),
        "balanced_accuracy": float(np.mean(balanced)) if balanced else None,
        "auroc": _auroc(truth, probabilities),
        "macro_f1": float(f1.mean()) if present.any() else None,
        "calibration_error": calibration_error(confident.ravel(), (truth == predicted).ravel()),
        "per_class_recall": recall,
    }


def _auroc(truth: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve, the mean over the columns that have both positives and negatives.

    From the ranks of the positives (Hanley and McNeil 1982); ties count half.

    Args:
        truth: booleans ``[samples, columns]``, one class or label against the rest.
        scores: ``[samples, columns]``.
    """
    positive = truth.sum(axis=0)
    defined = (positive > 0) & (positive < len(truth))
    if not defined.any():
        return None
    positive = positive[defined]
    rank_sums = (_ranks(scores[:, defined]) * truth[:, defined]).sum(axis=0)
    areas = (rank_sums - positive * (positive + 1) / 2) / (positive * (len(truth) - positive))
    return float(areas.mean())


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks from 1 within each column of ``[samples, columns]``, equal scores sharing the mean of theirs.

    As `scipy.stats.rankdata`, whose import takes longer than a small run.
    """
    ranks = np.empty(scores.shape)
    for column, values in enumerate(scores.T):
        _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks[:, column] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins of confidence (Guo et al. 2017, equation 3)."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=correct.astype(float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
