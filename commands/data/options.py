"""Options of the command ``data``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from core import datasets
from core.config import run as config
from core.config.execution import ExecutionOptions
from core.config.options import copy_option, option


@dataclass(frozen=True)
class Data:
    """Describe a data set: clips, classes, folds, lengths, sampling rates, and problems.

    Every clip is decoded, so that unreadable files are found before training (--no-decode skips this). With --label,
    --group, --n-folds, --holdout or --max-clips-per-class, the data set is described as runs with these options use it.

    Examples
    --------
    run_ablation.py data
    run_ablation.py data --data urbansound8k --data-root DIR
    run_ablation.py data --data folder --data-root my_recordings --n-folds 5
    run_ablation.py data --data folder --data-root clips.csv --columns path=file_name label=class group=speaker
    run_ablation.py data --data esc50 --data-root DIR --download
    """

    runs: ClassVar[str] = "commands.data.run:run"

    data: str = option("instruments", f"Data set: {', '.join(datasets.LOADERS)}.")
    data_root: Path | None = option(
        None,
        "Folder of the data set (for folder, also a CSV file of path,label[,fold or split][,group], a folder with "
        "metadata.csv or Parquet files, or hub:OWNER/NAME).",
    )
    columns: tuple[str, ...] = copy_option(ExecutionOptions, "columns")
    label: str = copy_option(config.Data, "label")
    group: str = copy_option(config.Data, "group")
    folds: int = copy_option(config.Data, "folds")
    leave_one_group_out: bool = copy_option(config.Data, "leave_one_group_out")
    set_aside: float = copy_option(config.Data, "set_aside")
    per_class: int = copy_option(config.Data, "per_class")
    decode: bool = option(True, "Decode every clip; --no-decode is faster for hundreds of thousands of clips.")
    download: bool = option(False, "Download the data set into --data-root first, if it can be downloaded.")
    results: Path = copy_option(ExecutionOptions, "results")
    json: bool = option(False, "Print one JSON object to stdout.")
