"""Subclasses that Ray Tune calls: a searcher, a callback and a stopper."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher as TuneSearcher

from core.cluster.sweep_progress import SweepProgress
from core.cluster.trial_source import TrialSource
from core.config.run import Run


class _NotPickled:
    """Base class that keeps an object out of Tune's checkpoint of the experiment, which is never read."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Searcher(_NotPickled, TuneSearcher):
    """Gives Tune the trials of a source.

    Parameters
    ----------
    source
        The runs of the sweep.
    images
        Function that returns the cache entries of a run, after computing missing ones.
    """

    def __init__(self, source: TrialSource, images: Callable[[Run], list[str]]) -> None:
        super().__init__()
        self.source, self.images = source, images

    def suggest(self, trial_id: str) -> Any:
        """Return the configuration of the next trial."""
        runs = self.source.next()
        if not runs:
            return TuneSearcher.FINISHED
        return {
            "runs": [run.to_dict() for run in runs],
            "labels": [self.source.label(run) for run in runs],
            "images": list(dict.fromkeys(entry for run in runs for entry in self.images(run))),
        }

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Do nothing: `SweepProgress` tells the source."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the store has the results."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the store has the results."""


class Callback(_NotPickled, tune.Callback):
    """Passes the events of trials to `SweepProgress`."""

    def __init__(self, progress: SweepProgress) -> None:
        self.progress = progress

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tell the progress display that a trial started."""
        self.progress.on_start(trial.config)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """Tell the progress display what a trial reported."""
        self.progress.on_report(trial.config, result)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tell the progress display that a trial was killed and will be restarted."""
        self.progress.on_death(trial.config, _trace(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tell the progress display that a trial ended."""
        self.progress.on_end(trial.config, trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tell the progress display that a trial failed for good."""
        self.progress.on_failure(trial.config, _trace(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Update the display, about ten times a second."""
        self.progress.tick()


class Stopper(_NotPickled, tune.Stopper):
    """Stops the sweep after an error that affects every trial."""

    def __init__(self, progress: SweepProgress) -> None:
        self.progress = progress

    def __call__(self, trial_id: str, result: Any) -> bool:
        """Never stop a single trial."""
        return False

    def stop_all(self) -> bool:
        """Return whether to stop all trials."""
        return bool(self.progress.fatal_error)


def _trace(trial: Any) -> str:
    """Return the tracebacks that Tune has saved for a trial."""
    return Path(trial.error_file).read_text() if trial.error_file else ""
