"""Stopping rules on small histories."""

import pytest

from core.config.options import list_problems
from core.config.run import Run, Training
from core.training import STOPPING
from core.training.early_stopping import find_stop_reason, patience, stop_at


def rows(losses: list[float], accuracies: list[float] | None = None) -> list[dict[str, float]]:
    accuracies = accuracies or [0.0] * len(losses)
    return [{"validation_loss": a, "validation_accuracy": b} for a, b in zip(losses, accuracies, strict=True)]


def test_patience_on_loss() -> None:
    history = [{"validation_loss": loss} for loss in (3.0, 2.0, 2.5, 2.1, 2.2)]
    assert not patience(Training(patience=0), history)
    assert patience(Training(patience=3), history)
    assert not patience(Training(patience=3), history[:4])
    assert patience(Training(patience=2), history)


def test_patience_on_accuracy() -> None:
    history = [{"validation_accuracy": accuracy} for accuracy in (0.5, 0.6, 0.6, 0.4)]
    assert patience(Training(patience=2, monitor="accuracy"), history)
    assert not patience(Training(patience=2, monitor="accuracy"), history[:3])


def test_stop_at_holds_after_reaching_accuracy() -> None:
    history = rows([1.0, 1.0, 1.0], [0.86, 0.87, 0.5])
    training = Training(stop_at=0.87)
    assert [stop_at(training, history[:n]) for n in range(4)] == [False, False, True, True]
    assert not stop_at(Training(), rows([1.0], [1.0]))


def test_find_stop_reason_names_rule_or_epochs() -> None:
    history = rows([3.0, 2.0, 2.5, 2.1], [0.1, 0.2, 0.9, 0.3])
    assert find_stop_reason(Training(epochs=9), history) == ""
    assert find_stop_reason(Training(epochs=4), history) == "epochs"
    assert find_stop_reason(Training(epochs=9, patience=2), history) == "patience"
    assert find_stop_reason(Training(epochs=4, stop_at=0.9), history) == "stop-at"
    assert find_stop_reason(Training(epochs=9, patience=2, stop_at=0.9), history[:3]) == "stop-at"


@pytest.mark.parametrize("name", STOPPING)
def test_stopping_rule_is_off_by_default(name: str) -> None:
    history = rows([1.0] * 50, [1.0] * 50)
    assert not STOPPING[name](Training(), history)
    assert not STOPPING[name](Training(patience=1, stop_at=0.1), [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__patience": 2}, "--patience needs --validation above 0"),
        ({"training__stop_at": 0.9}, "--stop-at-accuracy needs --validation above 0"),
        ({"training__schedule": "plateau"}, "--schedule plateau needs --validation above 0"),
        ({"training__monitor": "accuracy"}, "--monitor accuracy needs --validation above 0"),
    ],
)
def test_options_that_need_validation_are_problems_without(changes: dict[str, object], message: str) -> None:
    (found,) = list_problems(Run().replace(**changes))
    assert found.startswith(message)
    assert list_problems(Run().replace(**changes, data__validation=0.2)) == []
