"""Search spaces, and the ways to go through one: every point of a grid, random points, or where Optuna looks.

An option is searched when it is given several values, ``--lr 1e-5 1e-4 1e-3``, or a range, ``--lr 1e-5:1e-2``. A range
is logarithmic where its end is at least ten times its beginning, and linear elsewhere. A point's values are rounded
to three digits, so that a command line says them exactly.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.config import options
from core.config.run import Run, field_of
from core.errors import UserError
from core.registry import Lazy
from core.store.runs import STOPPED, Store

optuna = Lazy("optuna")  # not installed everywhere
Point = dict[str, Any]  # value by ``group__field``
MAX_DRAWS = 100  # tries to draw a point that was not drawn before


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `whole` ones alone, or all."""

    low: float
    high: float
    whole: bool

    @property
    def log(self) -> bool:
        """Whether equal factors are equally likely, instead of equal differences."""
        return self.low > 0 and self.high >= 10 * self.low

    def at(self, share: float) -> float:
        """Return the number at `share` (0 to 1) of the way.

        A whole number has all the way up to the next one: were they rounded, the ends would have half of theirs.
        """
        end = self.high + self.whole
        if self.log:
            found = math.exp(math.log(self.low) + share * (math.log(end) - math.log(self.low)))
        else:
            found = self.low + share * (end - self.low)
        return self.rounded(math.floor(found) if self.whole else found)

    def rounded(self, value: float) -> float:
        """Return `value` with three digits, or whole, and within the range."""
        short = round(value) if self.whole else float(f"{value:.3g}")
        return min(max(short, self.low), self.high)


Space = dict[str, Sequence[Any] | Range]


def flag_of(key: str) -> str:
    """Return the command line's name of ``group__field``."""
    return options.flag_of(field_of(key))


def column_name(key: str) -> str:
    """Return the column name of ``group__field`` in tables: ``length_mode`` for ``clip__fit``."""
    return options.option_name(field_of(key))


def parse_values(key: str, texts: Sequence[str]) -> Sequence[Any] | Range:
    """Read the values, or the range, of an option.

    Parameters
    ----------
    key
        ``group__field``.
    texts
        Words of the command line; values of other types than text are passed on.

    Raises
    ------
    UserError
        For a word that is neither a value of this option nor a range.
    """
    kind: Any = field_of(key).type
    if kind not in (int, float):
        return tuple(texts)
    if any(":" in text for text in texts):
        return _parse_range(key, texts, kind)
    return tuple(_parse_number(key, text, kind) for text in texts)


def _parse_range(key: str, texts: Sequence[str], kind: type) -> Range:
    low, _, high = texts[0].partition(":")
    if len(texts) > 1 or ":" in high:
        raise UserError(f"{flag_of(key)} {' '.join(texts)}: give values, or one range LOW:HIGH")
    made = Range(_parse_number(key, low, kind), _parse_number(key, high, kind), kind is int)
    if made.low >= made.high:
        raise UserError(f"{flag_of(key)} {texts[0]}: the range must go up")
    return made


def _parse_number(key: str, text: str, kind: type) -> Any:
    try:
        value = kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UserError(f"{flag_of(key)} {text}: give {what}, several of them, or a range LOW:HIGH") from None
    if found := options.list_field_problems(field_of(key), value):
        raise UserError(found[0])
    return value


def grid_points(space: Space) -> list[Point]:
    """Return every point, in the order of the command line.

    Raises
    ------
    UserError
        Where the space has a range.
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
    """Draw different points at random; fewer than `trials` where there are no more.

    The first ones stay the same when `trials` is raised.
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
    return values.at(rng.random()) if isinstance(values, Range) else values[int(rng.integers(len(values)))]


class OptunaSampler:
    """Points where Optuna's tree-structured Parzen estimator looks, given what earlier ones reached.

    Parameters
    ----------
    space
        The search space.
    seed
        Of the sampler.
    known
        Points that are asked for first: those of an earlier, interrupted search.

    Raises
    ------
    UserError
        Where Optuna is not installed.
    """

    def __init__(self, space: Space, *, seed: int, known: Sequence[Point] = ()) -> None:
        try:
            optuna.logging  # noqa: B018  (imports it)
        except ImportError:
            raise UserError("--search optuna needs Optuna: pip install 'audio-ablation[ray]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.failure = optuna.trial.TrialState.FAIL
        draws = int(np.random.SeedSequence((seed, len(known))).generate_state(1)[0])  # not those of `known` once more
        self.study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=draws))
        self.open: list[tuple[Point, Any]] = []
        for point in known:
            self.study.enqueue_trial(point)

    def ask(self) -> Point:
        """Return a point to try."""
        trial = self.study.ask()
        point = {key: self._suggested(trial, key, values) for key, values in self.space.items()}
        self.open.append((point, trial))
        return point

    def tell(self, point: Point, score: float | None) -> None:
        """Say what a point that was asked for has reached, None if nothing; higher is better."""
        index = next(i for i, (asked, _) in enumerate(self.open) if asked == point)
        _, trial = self.open.pop(index)
        if score is None:
            self.study.tell(trial, state=self.failure)
        else:
            self.study.tell(trial, score)

    def _suggested(self, trial: Any, key: str, values: Sequence[Any] | Range) -> Any:
        if not isinstance(values, Range):
            return trial.suggest_categorical(key, list(values))
        if values.whole:
            return trial.suggest_int(key, int(values.low), int(values.high), log=values.log)
        return values.rounded(trial.suggest_float(key, values.low, values.high, log=values.log))


def read_validation_score(store: Store, run: Run) -> tuple[float, float] | None:
    """Return a run's accuracy and loss on its validation clips after its last epoch, None where it has none."""
    record = store.record(run)
    if record and record.finished:
        last = store.history(run).iloc[-1]
        return float(last["validation_accuracy"]), float(last["validation_loss"])
    if record and record.status == STOPPED:
        return record.metrics.validation_accuracy, record.metrics.validation_loss
    return None
