"""Every figure against scikit-learn on its own, or against an example counted by hand."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn import metrics as reference

from flop_p2p.learning import evaluate_logits
from flop_p2p.learning.metrics import calibration_error


def draw(seed: int, samples: int, classes: int, present: list[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Logits that know something, and labels of the classes ``present``, each of which comes."""
    generator = np.random.default_rng(seed)
    chosen = np.arange(classes) if present is None else np.array(present)
    labels = np.concatenate([chosen, generator.choice(chosen, samples - len(chosen))])
    return (generator.normal(size=(samples, classes)) + np.eye(classes)[labels]).astype(np.float32), labels


def quietly(figure: object, *arguments: object, **options: object) -> float:
    """scikit-learn's value, without its warnings about classes that are absent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(figure(*arguments, **options))  # type: ignore[operator]


@given(seed=st.integers(0, 999), samples=st.integers(8, 60), classes=st.integers(3, 6))
def test_several_classes(seed: int, samples: int, classes: int) -> None:
    logits, labels = draw(seed, samples, classes)
    found, predicted = evaluate_logits(logits, labels, "multiclass"), logits.argmax(axis=1)
    scores = softmax(logits.astype(np.float64), axis=1)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert found["auroc"] == pytest.approx(
        reference.roc_auc_score(labels, scores, multi_class="ovr", average="macro"), abs=1e-6
    )
    recall = reference.recall_score(labels, predicted, average=None, labels=range(classes))
    assert found["per_class_recall"] == pytest.approx(recall.tolist())


@given(seed=st.integers(0, 999), samples=st.integers(4, 60))
def test_two_classes(seed: int, samples: int) -> None:
    logits, labels = draw(seed, samples, 2)
    found, predicted = evaluate_logits(logits, labels, "binary"), logits.argmax(axis=1)
    scores = softmax(logits.astype(np.float64), axis=1)[:, 1]
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))


@given(seed=st.integers(0, 999), present=st.sets(st.integers(0, 5), min_size=2, max_size=4))
def test_absent_classes_are_left_out(seed: int, present: set[int]) -> None:
    classes = sorted(present)
    logits, labels = draw(seed, 30, 6, classes)
    found, predicted = evaluate_logits(logits, labels, "multiclass"), logits.argmax(axis=1)
    assert found["balanced_accuracy"] == pytest.approx(quietly(reference.balanced_accuracy_score, labels, predicted))
    assert found["macro_f1"] == pytest.approx(
        quietly(reference.f1_score, labels, predicted, labels=classes, average="macro")
    )
    scores = softmax(logits.astype(np.float64), axis=1)
    each = [reference.roc_auc_score(labels == number, scores[:, number]) for number in classes]
    assert found["auroc"] == pytest.approx(np.mean(each), abs=1e-6)
    for number, recall in enumerate(found["per_class_recall"]):
        expected = np.mean(predicted[labels == number] == number) if number in present else None
        assert recall == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("outputs", "task"), [(2, "binary"), (4, "multiclass")])
def test_one_class_alone_has_no_auroc(outputs: int, task: str) -> None:
    logits = np.random.default_rng(0).normal(size=(5, outputs)).astype(np.float32)
    found = evaluate_logits(logits, np.ones(5, int), task)  # type: ignore[arg-type]
    assert found["auroc"] is None
    assert found["balanced_accuracy"] == found["accuracy"] == pytest.approx(np.mean(logits.argmax(axis=1) == 1))


def test_perfect_and_useless_predictions() -> None:
    labels = np.array([0, 1, 2, 0])
    perfect = evaluate_logits(50 * np.eye(3)[labels], labels, "multiclass")
    assert [perfect[key] for key in ("accuracy", "balanced_accuracy", "auroc", "macro_f1")] == [1.0] * 4
    assert perfect["calibration_error"] == pytest.approx(0, abs=1e-9)
    useless = evaluate_logits(np.tile([9.0, 0.0, 0.0], (4, 1)), labels, "multiclass")
    assert useless["accuracy"] == 0.5
    assert useless["balanced_accuracy"] == pytest.approx(1 / 3)
    assert useless["auroc"] == 0.5


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_very_sure_predictions_are_not_tied(task: str) -> None:
    sure = np.array([[0.0, 18.0], [0.0, 22.0], [0.0, 26.0], [0.0, -9.0]], dtype=np.float32)
    labels = np.array([0, 1, 1, 0])
    truth = np.eye(2, dtype=np.float32)[labels] if task == "multilabel" else labels
    columns = sure[:, 1:] if task == "multilabel" else sure
    found = evaluate_logits(columns, truth[:, 1:] if task == "multilabel" else truth, task)  # type: ignore[arg-type]
    assert found["auroc"] == 1.0


def test_tied_scores_count_half() -> None:
    generator = np.random.default_rng(2)
    logits, labels = generator.integers(-1, 2, (60, 2)).astype(np.float32), generator.integers(0, 2, 60)
    found = evaluate_logits(logits, labels, "binary")
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(labels, logits[:, 1] - logits[:, 0]))


def test_predictions_with_the_prior_and_without() -> None:
    single, labels = draw(5, 50, 3)
    logits, prior = single.astype(np.float64), np.log([0.7, 0.2, 0.1])
    found = evaluate_logits(single, labels, "multiclass", prior)
    plain, adjusted = (evaluate_logits(values, labels, "multiclass") for values in (logits, logits + prior))
    assert plain["accuracy"] != adjusted["accuracy"]
    assert plain["balanced_accuracy"] != adjusted["balanced_accuracy"]
    for key in ("accuracy", "auroc", "macro_f1", "calibration_error"):
        assert found[key] == adjusted[key], key
    for key in ("balanced_accuracy", "per_class_recall"):
        assert found[key] == plain[key], key
    assert found["balanced_accuracy_with_prior"] == adjusted["balanced_accuracy"]
    assert found["accuracy_without_prior"] == plain["accuracy"]
    assert "accuracy_without_prior" not in plain


def test_calibration_error_by_hand() -> None:
    # 15 bins: 0.95 and 0.97 share the last, 0.6 lies alone in [9/15, 10/15).
    confidence, correct = np.array([0.95, 0.97, 0.61, 0.2]), np.array([True, False, True, False])
    expected = (abs((1 - 0.95) + (0 - 0.97)) + abs(1 - 0.61) + abs(0 - 0.2)) / 4
    assert calibration_error(confidence, correct) == pytest.approx(expected)
    assert calibration_error(confidence, correct, bins=1) == pytest.approx(abs(2 - confidence.sum()) / 4)
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0


def test_calibration_error_of_logits() -> None:
    logits = np.log([[0.8, 0.2], [0.8, 0.2], [0.7, 0.3]])  # right, wrong, right
    found = evaluate_logits(logits, np.array([0, 1, 0]), "binary")
    assert found["calibration_error"] == pytest.approx((abs(1 - 1.6) + abs(1 - 0.7)) / 3)


@given(seed=st.integers(0, 999), samples=st.integers(2, 40))
def test_several_labels(seed: int, samples: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(samples, 3)).astype(np.float32)
    labels = (generator.random((samples, 3)) < 0.4).astype(np.float32)
    labels[0], labels[1] = 0, 1
    found, predicted = evaluate_logits(logits, labels, "multilabel"), logits > 0
    columns = list(zip(labels.T, predicted.T, strict=True))
    assert found["accuracy"] == pytest.approx(1 - reference.hamming_loss(labels, predicted))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(labels, expit(logits), average="macro"), abs=1e-6)
    assert found["macro_f1"] == pytest.approx(quietly(reference.f1_score, labels, predicted, average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(
        np.mean([reference.balanced_accuracy_score(*column) for column in columns])
    )
    assert found["per_class_recall"] == pytest.approx([reference.recall_score(*column) for column in columns])


def test_labels_that_nobody_or_everybody_has() -> None:
    labels = np.array([[1.0, 0, 1], [0, 0, 1], [1, 0, 1]])
    logits = np.array([[1.0, -1, 1], [2, 1, -1], [-1, -1, 1]])
    found = evaluate_logits(logits, labels, "multilabel")
    assert found["per_class_recall"] == [0.5, None, pytest.approx(2 / 3)]
    assert found["balanced_accuracy"] == pytest.approx((0.5 + 0.0) / 2)  # of the first label, the only one with both
    assert found["auroc"] == pytest.approx(0.0)
    assert found["macro_f1"] == pytest.approx((2 * 1 / (2 + 2) + 2 * 2 / (3 + 2)) / 2)
    nothing = evaluate_logits(logits, np.zeros((3, 3)), "multilabel")
    assert (nothing["auroc"], nothing["balanced_accuracy"], nothing["macro_f1"]) == (None, None, None)


def test_several_labels_with_a_prior() -> None:
    logits, labels = np.array([[0.5, -0.5], [-0.5, 0.5]]), np.array([[1.0, 0], [1, 0]])
    found = evaluate_logits(logits, labels, "multilabel", np.array([1.0, -1.0]))
    assert (found["accuracy"], found["accuracy_without_prior"]) == (1.0, 0.5)
    assert found["per_class_recall"] == [0.5, None]


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_figures_are_plain_json(task: str) -> None:
    outputs = 2 if task == "binary" else 3
    logits, labels = draw(1, 12, outputs)
    truth = np.eye(outputs, dtype=np.float32)[labels] if task == "multilabel" else labels
    found = evaluate_logits(logits, truth, task, np.zeros(outputs, np.float32))  # type: ignore[arg-type]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
