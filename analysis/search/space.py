"""Search spaces, and their points: a full grid, random points, or points that Optuna suggests.

An option is searched if it has several values, ``--lr 1e-5 1e-4 1e-3``, or a range, ``--lr 1e-5:1e-2``. A range is
logarithmic if its end is at least ten times its start, and linear otherwise. Values are rounded to three digits, so
that they can be repeated exactly on the command line.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from core.config import options
from core.config.run import Run, field_of
from core.errors import UserError
from core.registry import Lazy
from core.store.run_store import STOPPED, Store

optuna = Lazy("optuna")  # only --search optuna imports it
Point = dict[str, Any]  # values of run options, with keys such as ``training__lr``: group and field of `Run`
MAX_DRAWS = 100  # attempts to draw a point that was not drawn before


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; only integers if `whole`."""

    low: float
    high: float
    whole: bool

    @property
    def log(self) -> bool:
        """Whether the range is logarithmic."""
        return self.low > 0 and self.high >= 10 * self.low

    def value_at(self, fraction: float) -> float:
        """Return the number at a fraction, 0 to 1, of the range.

        Integers are rounded down from a range that ends at ``high + 1``, so that all of them are equally likely.
        """
        end = self.high + self.whole
        if self.log:
            value = math.exp(math.log(self.low) + fraction * (math.log(end) - math.log(self.low)))
        else:
            value = self.low + fraction * (end - self.low)
        return self.clamp(math.floor(value) if self.whole else value)

    def clamp(self, value: float) -> float:
        """Return `value` within the range, with three digits or as an integer."""
        rounded = round(value) if self.whole else float(f"{value:.3g}")
        return min(max(rounded, self.low), self.high)


Space = dict[str, Sequence[Any] | Range]


def contains(space: Space, point: Any) -> bool:
    """Return whether `point`, read from a JSON file, is a point of a search space."""
    return (
        isinstance(point, dict)
        and set(point) == set(space)
        and all(map(_allows, space.values(), map(point.get, space)))
    )


def _allows(values: Sequence[Any] | Range, value: Any) -> bool:
    """Return whether an option of a search space can have a value."""
    if not isinstance(values, Range):
        return value in values and type(value) in set(map(type, values))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and values.low <= value <= values.high and not (values.whole and value % 1)


def flag_of(key: str) -> str:
    """Return the command line option of ``group__field``."""
    return options.flag_of(field_of(key))


def column_name(key: str) -> str:
    """Return the column name of ``group__field`` in tables: ``length_mode`` for ``clip__fit``."""
    return options.option_name(field_of(key))


def option_values(run: Run, keys: Sequence[str]) -> Point:
    """Return the values of some options of a run, as typed on the command line."""
    return {key: options.typed_value(field_of(key), attrgetter(key.replace("__", "."))(run)) for key in keys}


def parse_values(key: str, texts: Sequence[str]) -> Sequence[Any] | Range:
    """Return the values, or the range, of an option.

    Parameters
    ----------
    key
        Option as ``group__field``.
    texts
        Words of the command line. If the option is neither an integer nor a float, they are returned unchanged.

    Raises
    ------
    UserError
        If a word is neither a value of this option nor a range.
    """
    kind: Any = field_of(key).type
    if kind not in (int, float):
        return tuple(texts)
    if any(":" in text for text in texts):
        return _parse_range(key, texts, kind)
    return tuple(_parse_number(key, text, kind) for text in texts)


def _parse_range(key: str, texts: Sequence[str], kind: type) -> Range:
    """Return the range of an option from a word such as ``1e-5:1e-2``."""
    low, _, high = texts[0].partition(":")
    if len(texts) > 1 or ":" in high:
        raise UserError(f"{flag_of(key)} {' '.join(texts)}: give values, or one range LOW:HIGH")
    values = Range(_parse_number(key, low, kind), _parse_number(key, high, kind), kind is int)
    if values.low >= values.high:
        raise UserError(f"{flag_of(key)} {texts[0]}: the end must be above the start")
    return values


def _parse_number(key: str, text: str, kind: type) -> Any:
    """Return the value of a numeric option; raise `UserError` if it is invalid."""
    try:
        value = kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise UserError(f"{flag_of(key)} {text}: give {expected}, several of them, or a range LOW:HIGH") from None
    if problems := options.list_field_problems(field_of(key), value):
        raise UserError(problems[0])
    return value


def grid_points(space: Space) -> list[Point]:
    """Return every combination of values, in the order of the command line.

    Raises
    ------
    UserError
        If the space has a range.
    """
    for key, values in space.items():
        if isinstance(values, Range):
            raise UserError(
                f"{flag_of(key)} {values.low:g}:{values.high:g} is a range: give values for a grid, or add "
                "--search random or --search optuna"
            )
    choices = [values for values in space.values() if not isinstance(values, Range)]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*choices)]


def draw_points(space: Space, *, trials: int, seed: int) -> list[Point]:
    """Return at most `trials` different random points.

    The points are the first ones of a longer list, so that a larger `trials` only adds points.
    """
    rng = np.random.default_rng(seed)
    points: list[Point] = []
    for _ in range(trials):
        for _ in range(MAX_DRAWS):
            point = {key: _draw_value(values, rng) for key, values in space.items()}
            if point not in points:
                points.append(point)
                break
    return points


def _draw_value(values: Sequence[Any] | Range, rng: np.random.Generator) -> Any:
    return values.value_at(rng.random()) if isinstance(values, Range) else values[int(rng.integers(len(values)))]


class OptunaSampler:
    """Sampler of points with the tree-structured Parzen estimator of Optuna, which learns from earlier scores.

    Parameters
    ----------
    space
        Search space.
    seed
        Seed of the sampler.
    known
        Points of an earlier, interrupted search, which are suggested again first.
    """

    def __init__(self, space: Space, *, seed: int, known: Sequence[Point] = ()) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.failure = optuna.trial.TrialState.FAIL
        sampler_seed = int(np.random.SeedSequence((seed, len(known))).generate_state(1)[0])  # do not repeat `known`
        self.study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=sampler_seed))
        self.open: list[tuple[Point, Any]] = []
        for point in known:
            self.study.enqueue_trial(point)

    def ask(self) -> Point:
        """Return the next point to train."""
        trial = self.study.ask()
        point = {key: self._suggest(trial, key, values) for key, values in self.space.items()}
        self.open.append((point, trial))
        return point

    def tell(self, point: Point, score: float | None) -> None:
        """Report the score of a point of `ask`, higher is better; None if it failed."""
        index = next(i for i, (open_point, _) in enumerate(self.open) if open_point == point)
        _, trial = self.open.pop(index)
        if score is None:
            self.study.tell(trial, state=self.failure)
        else:
            self.study.tell(trial, score)

    def _suggest(self, trial: Any, key: str, values: Sequence[Any] | Range) -> Any:
        """Return the value that Optuna suggests for an option in a trial."""
        if not isinstance(values, Range):
            return trial.suggest_categorical(key, list(values))
        if values.whole:
            return trial.suggest_int(key, int(values.low), int(values.high), log=values.log)
        return values.clamp(trial.suggest_float(key, values.low, values.high, log=values.log))


def read_validation_score(store: Store, run: Run) -> tuple[float, float] | None:
    """Return accuracy (0 to 1) and loss of a run on its validation clips after the last epoch; None if it has none."""
    record = store.record(run)
    if record and record.finished:
        last = store.history(run).iloc[-1]
        return float(last["validation_accuracy"]), float(last["validation_loss"])
    if record and record.status == STOPPED:
        return record.metrics.validation_accuracy, record.metrics.validation_loss
    return None
