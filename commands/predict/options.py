"""What is the `predict` command asked? Which finished networks, about which sounds, and what is known of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from core.config.execution import Execution
from core.config.options import option, same_option


@dataclass(frozen=True)
class Predict:
    """Let finished networks name new sounds: the class of each, and the probability of every class.

    --from is a folder (recordings at any depth), one recording, or a CSV file with a column path; for a network of
    features a CSV file of filename and those columns, which needs no labels. Sounds become inputs exactly as in the
    run, and nothing is fitted to them. Of several networks the probabilities are averaged. Written are
    predictions.csv and .parquet, with --truth scores, a table of classes and a confusion matrix, and with
    --submission a CSV file of id,label for a competition.

    The id of a run is in the column run_ids of every table.csv, and --dry-run of its command prints it.

    Example: run_ablation.py predict --run 0123456789ab --from recordings --on-bad-clip skip
    """

    runs: ClassVar[str] = "commands.predict.run:run_predict"

    run: tuple[str, ...] = option((), "Ids of finished runs; those of several have the same classes.")
    all_seeds: bool = option(False, "Average with every finished run that differs from --run in its seed alone.")
    source: Path | None = option(None, "Folder of recordings, a recording, or a CSV file.", flag="from")
    set_aside: bool = option(
        False,
        "Instead of --from: the clips that --set-aside of the run kept from everything, scored; needs --data-root "
        "unless the data set is embedded.",
    )
    data_root: Path | None = option(None, "Folder of the run's data set (with --set-aside).")
    truth: Path | None = option(
        None,
        "What they really are: a CSV file of label and path, file, filename or id, or a folder with a folder for each "
        "class, which --from itself may be.",
    )
    submission: str = option(
        "none",
        "Write submission.csv too, of id and label. The id is the file's path below --from, its name, or its name "
        "without suffix (stem).",
        choices=("none", "path", "name", "stem"),
    )
    on_bad_clip: str = option(
        "fail",
        "A recording that cannot be used: fail names all of them and stops; skip leaves them out and counts them.",
        choices=("fail", "skip"),
    )
    results: Path = same_option(Execution, "results")
    device: str = same_option(Execution, "device")
    threads: int = same_option(Execution, "threads")
    json: bool = same_option(Execution, "json")
