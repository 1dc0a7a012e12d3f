import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from core.training import metrics

# Three classes; predictions 0, 0, 1, 2, 0 (class 3 neither occurs nor is predicted).
TARGETS = np.array([0, 0, 1, 1, 2])
SCORES = np.array([[5, 1, 0, 0], [3, 2, 1, 0], [0, 4, 1, 0], [0, 1, 2, 0], [9, 0, 0, 0]], dtype=np.float32)

ADDED = [  # not in records of version 1
    "balanced_accuracy",
    "ece_calibrated",
    "weighted_precision",
    "weighted_recall",
    "weighted_f1",
]


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 6, 200)
    return rng.normal(size=(200, 7)) + 1.5 * np.eye(7)[targets], targets


def test_metrics_by_hand():
    assert metrics.accuracy(SCORES, TARGETS) == pytest.approx(3 / 5)
    expected = [[2, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert metrics.confusion_matrix(SCORES, TARGETS).tolist() == expected
    scores = metrics.per_class(SCORES, TARGETS)
    np.testing.assert_allclose(scores.precision, [2 / 3, 1, 0, 0])
    np.testing.assert_allclose(scores.recall, [1, 1 / 2, 0, 0])
    np.testing.assert_allclose(scores.f1, [4 / 5, 2 / 3, 0, 0])
    assert scores.support.tolist() == [2, 2, 1, 0]
    assert metrics.macro_f1(SCORES, TARGETS) == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)  # class 3 does not count


def test_metrics_equal_scikit_learn(case):
    logits, targets = case
    predictions = logits.argmax(axis=1)
    assert metrics.accuracy(logits, targets) == sklearn_metrics.accuracy_score(targets, predictions)
    assert metrics.macro_f1(logits, targets) == pytest.approx(
        sklearn_metrics.f1_score(targets, predictions, average="macro", zero_division=0), abs=1e-14
    )
    np.testing.assert_array_equal(
        metrics.confusion_matrix(logits, targets),
        sklearn_metrics.confusion_matrix(targets, predictions, labels=range(7)),
    )
    theirs = sklearn_metrics.precision_recall_fscore_support(targets, predictions, labels=range(7), zero_division=0)
    ours = metrics.per_class(logits, targets)
    for mine, reference in zip((ours.precision, ours.recall, ours.f1, ours.support), theirs, strict=True):
        np.testing.assert_allclose(mine, reference, atol=1e-14)
    probs = metrics.softmax(logits)
    assert metrics.nll(probs, targets) == pytest.approx(sklearn_metrics.log_loss(targets, probs, labels=range(7)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("there", [6, 3])
def test_balanced_and_weighted_metrics_equal_scikit_learn(case, there):
    logits, targets = case
    targets = targets % there  # with 3, classes 3 to 5 are predicted but are no targets
    predictions = logits.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that are predicted but are no targets
        expected = sklearn_metrics.balanced_accuracy_score(targets, predictions)
    assert metrics.balanced_accuracy(logits, targets) == pytest.approx(expected, abs=1e-14)
    options = {"average": "weighted", "zero_division": 0}
    assert metrics.weighted_means(logits, targets) == pytest.approx(
        {
            "weighted_precision": sklearn_metrics.precision_score(targets, predictions, **options),
            "weighted_recall": metrics.accuracy(logits, targets),
            "weighted_f1": sklearn_metrics.f1_score(targets, predictions, **options),
        },
        abs=1e-14,
    )


def test_softmax_of_large_logits_is_finite():
    probs = metrics.softmax(np.float32([[1000, 999, -1000]]))
    np.testing.assert_allclose(probs, [[1 / (1 + np.exp(-1)), np.exp(-1) / (1 + np.exp(-1)), 0]])
    assert probs.dtype == np.float64


def test_nll_of_probability_0_is_finite():
    assert metrics.nll([[1.0, 0.0]], [1]) == pytest.approx(-np.log(np.finfo(float).tiny))


def test_brier_by_hand():
    assert metrics.brier([[1.0, 0.0], [0.0, 1.0]], [0, 1]) == 0
    assert metrics.brier([[1.0, 0.0]], [1]) == 2
    assert metrics.brier([[0.5, 0.3, 0.2]], [1]) == pytest.approx(0.25 + 0.49 + 0.04)


def test_ece_by_hand():
    # confidences 0.8 (right), 0.8 (wrong) share a bin: |1 - 1.6| / 4; 0.6, 0.6, both right: |2 - 1.2| / 4
    probs = [[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.4, 0.6]]
    assert metrics.ece(probs, [0, 1, 0, 1]) == pytest.approx(0.6 / 4 + 0.8 / 4)
    assert metrics.ece([[1.0, 0.0], [0.0, 1.0]], [0, 1]) == 0
    assert metrics.ece(probs, [0, 1, 0, 1], bins=1) == pytest.approx(abs(3 - 2.8) / 4)


def test_ece_calibrated_is_mean_ece_of_labels_drawn_from_probabilities() -> None:
    alone = [[0.75, 0.25], [0.45, 0.55]]  # a clip alone in its bin is |0 - p| or |1 - p| away: 2 p (1 - p) on average
    assert metrics.ece_calibrated(alone) == pytest.approx((2 * 0.75 * 0.25 + 2 * 0.55 * 0.45) / 2, rel=0.05)
    many = np.tile([0.75, 0.25], (400, 1))  # normal limit in one bin: sqrt(2 p (1 - p) / (pi n))
    assert metrics.ece_calibrated(many) == pytest.approx(np.sqrt(2 * 0.75 * 0.25 / (np.pi * 400)), rel=0.08)
    assert metrics.ece_calibrated([[1.0, 0.0]]) == 0
    rng = np.random.default_rng(1)
    probs = metrics.softmax(2 * rng.normal(size=(120, 10)))
    drawn = [(probs.cumsum(axis=1) > rng.random((120, 1))).argmax(axis=1) for _ in range(500)]
    expected = np.mean([metrics.ece(probs, targets) for targets in drawn])
    assert metrics.ece_calibrated(probs) == pytest.approx(expected, rel=0.04)
    assert metrics.ece_calibrated(probs) == metrics.ece_calibrated(probs)


def test_summarise_ensemble_of_copies_equals_member(case):
    logits, targets = case
    np.testing.assert_allclose(metrics.soft_vote([logits] * 3), metrics.softmax(logits))
    assert metrics.disagreement([logits] * 3) == 0
    together = metrics.summarise_ensemble([logits] * 3, targets)
    assert together == pytest.approx(metrics.summarise(logits, targets) | {"disagreement": 0})
    assert list(together) == ["accuracy", "macro_f1", "nll", "brier", "ece", *ADDED, "disagreement"]


def test_disagreement_by_hand():
    members = [np.eye(3)[list(predictions)] for predictions in ((0, 1, 2, 0), (0, 1, 2, 1), (0, 1, 1, 2))]
    assert metrics.disagreement(members) == pytest.approx((1 / 4 + 2 / 4 + 2 / 4) / 3)
    assert np.isnan(metrics.disagreement(members[:1]))
