"""Options of the command ``runs``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from core.config.execution import ExecutionOptions
from core.config.options import copy_option, option

ACTIONS = ("list", "show", "diff", "export", "label", "verify", "delete", "prune")


@dataclass(frozen=True)
class Runs:
    """List, show, compare, label, check, export and delete the runs of a results folder.

    list (the default) prints one line per run, with the options that differ between the runs. show ID prints the
    options of a run that differ from the defaults, its learning curves, scores and files. diff ID ID prints the options
    and scores in which two runs differ. export FILE writes all options and metrics of the runs as CSV or Parquet. label
    ID TEXT gives a run a label, and without TEXT removes it. verify [ID ...] compares the files of runs with their
    checksums. delete ID ... moves runs to the trash. prune moves failed or unused runs to the trash, or deletes old
    files of the cache. An id may be shortened as long as it is unique.

    delete and prune print what they would remove, and remove it only with --yes. Runs in the trash (a folder of the
    results folder) can be moved back by hand; prune --trash --yes empties it.

    Examples
    --------
    run_ablation.py runs --where 'backbone=resnet50 fold=1 accuracy>0.7' --sort accuracy
    run_ablation.py runs show 89aa
    run_ablation.py runs diff 89aa c80c
    run_ablation.py runs export runs.parquet --where status=finished
    run_ablation.py runs label 89aa "first try"
    run_ablation.py runs prune --failed --yes
    """

    runs: ClassVar[str] = "commands.runs.run:run"

    action: tuple[str, ...] = option(
        (), "list, show, diff, export, label, verify, delete or prune, with ids or a file.", positional=True
    )
    where: tuple[str, ...] = option(
        (), "Only runs with these values: name=value, !=, <, <=, >, >= or ~ (contains), for options and metrics."
    )
    sort: str = option(
        "", "Column to sort by, in ascending order; -NAME and scores such as accuracy are in descending order."
    )
    columns: tuple[str, ...] = option((), "Columns of the list, instead of the options that differ between the runs.")
    limit: int = option(0, "Maximum number of runs in the list (0: all).", at_least=0)
    failed: bool = option(False, "With prune: remove failed runs.")
    unused: bool = option(False, "With prune: remove finished runs that no table or figure of the results folder uses.")
    cache_days: float | None = option(
        None, "With prune: remove files of the cache that were not used for this number of days.", at_least=0
    )
    trash: bool = option(False, "With prune: empty the trash for good.")
    yes: bool = option(False, "With delete or prune: remove, and do not only print what would be removed.")
    results: Path = copy_option(ExecutionOptions, "results")
    json: bool = option(False, "Print the runs as JSON to stdout.")
