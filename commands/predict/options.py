"""Options of the command ``predict``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from core.config.execution import ExecutionOptions
from core.config.options import copy_option, option


@dataclass(frozen=True)
class Predict:
    """Classify new recordings with trained networks: the class of each recording and the probability of every class.

    PATH is a folder (recordings at any depth), a recording, or a CSV file with a column "path"; for a network of
    features, a CSV file with "filename" and the columns of features. Inputs are computed exactly as for the run, and
    nothing is fitted to the new recordings. The probabilities of several networks are averaged. The results are
    predictions.csv and predictions.parquet; --labels adds scores, a table of classes and a confusion matrix. Networks
    trained with hinge loss have no probabilities: the files have their softmax outputs instead.

    The column part shows which recordings are identical to training, validation or test clips of the networks. These
    have their own rows of scores.

    The id of a run is in the column run_ids of every table.csv; --dry-run of an ablation prints it.

    Examples
    --------
    run_ablation.py predict recordings --run 0123456789ab
    run_ablation.py predict recordings --run 0123456789ab --labels labels.csv --on-bad-clip skip
    run_ablation.py predict recordings --run 0123456789ab --all-seeds --submission name
    run_ablation.py predict --run 0123456789ab --holdout
    """

    runs: ClassVar[str] = "commands.predict.run:run_predict"

    paths: tuple[Path, ...] = option(
        (), "Folders of recordings, recordings, or CSV files.", flag="path", positional=True
    )
    run: tuple[str, ...] = option((), "Ids of finished runs; several must have the same classes.")
    all_seeds: bool = option(False, "Average with all finished runs that differ from --run only in the seed.")
    holdout: bool = option(
        False,
        "Predict and score the clips that were held out of the run (by --holdout of the ablation), instead of PATH; "
        "needs --data-root unless the data set is embedded.",
    )
    data_root: Path | None = option(None, "Folder of the run's data set (with --holdout).")
    columns: tuple[str, ...] = copy_option(ExecutionOptions, "columns")
    labels: Path | None = option(
        None,
        "True classes: a CSV file with a column label and one of path, file, filename or id, or a folder with one "
        "folder per class (PATH itself may be one).",
    )
    submission: str = option(
        "none",
        "Also write submission.csv with columns id and label. The id is the path of the file below PATH, its name, or "
        "its name without suffix (stem).",
        choices=("none", "path", "name", "stem"),
    )
    on_bad_clip: str = option(
        "fail",
        "Unreadable recordings: fail lists all of them and stops; skip leaves them out and counts them.",
        choices=("fail", "skip"),
    )
    results: Path = copy_option(ExecutionOptions, "results")
    output: Path | None = copy_option(ExecutionOptions, "output")
    style: Path | None = copy_option(ExecutionOptions, "style")
    device: str = copy_option(ExecutionOptions, "device")
    threads: int = copy_option(ExecutionOptions, "threads")
    json: bool = copy_option(ExecutionOptions, "json")
