"""The classes Ray Tune asks for: a searcher that hands out runs, and a stopper for what no trial can mend."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher as TuneSearcher

from core.cluster.sweep_progress import Watch
from core.cluster.trial_source import Feed
from core.config.run import Run


class _Unkept:
    """Leaves nothing in Tune's record of an experiment, which is never read back."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Searcher(_Unkept, TuneSearcher):
    """Makes a trial of each run of a feed, or of several that are trained together.

    Parameters
    ----------
    feed
        The runs.
    images
        Returns the entries of the cache that a run reads, made where they are missing.
    """

    def __init__(self, feed: Feed, images: Callable[[Run], list[str]]) -> None:
        super().__init__()
        self.feed, self.images = feed, images

    def suggest(self, trial_id: str) -> Any:
        """Return the configuration of the next trial."""
        runs = self.feed.next()
        if not runs:
            return TuneSearcher.FINISHED
        return {
            "runs": [run.to_dict() for run in runs],
            "labels": [self.feed.label(run) for run in runs],
            "images": list(dict.fromkeys(entry for run in runs for entry in self.images(run))),
        }

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing: `Watch` tells the feed, once the store knows."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store is the record."""


class Callback(_Unkept, tune.Callback):
    """Passes on what happens to trials."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a trial has a process."""
        self.watch.started(trial.config)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """Pass on what a trial reports."""
        self.watch.reported(trial.config, result)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a trial has died and will go on."""
        self.watch.died(trial.config, _trace(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a trial has ended or was stopped."""
        self.watch.ended(trial.config, trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a trial has failed for good."""
        self.watch.failed(trial.config, _trace(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look around, about ten times a second."""
        self.watch.tick()


class Stopper(_Unkept, tune.Stopper):
    """Stops everything when a trial met what no other trial could mend."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def __call__(self, trial_id: str, result: Any) -> bool:
        """Stop no trial alone."""
        return False

    def stop_all(self) -> bool:
        """Tell whether to stop."""
        return bool(self.watch.refused)


def _trace(trial: Any) -> str:
    """Return what Tune noted of a trial's errors."""
    return Path(trial.error_file).read_text() if trial.error_file else ""
