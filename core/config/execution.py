"""Options of execution: device, threads, folders and Ray. They change no result and are not part of run ids."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from core.config.options import option
from core.system.atomic_files import short_digest

MAX_THREADS = 16 * (os.cpu_count() or 1)  # more threads than cores cost memory; thousands crash the process
MAX_KEY_LENGTH = 40  # characters of `output_key`, part of a folder name; a longer key is replaced by its digest
MAX_NAME_LENGTH = 100


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Options of Ray, with which runs become trials of Ray Tune."""

    ray: str = option(
        "", "Run as Ray Tune trials: local starts Ray on this machine; auto or HOST:PORT joins a cluster."
    )
    cpus_per_trial: float | None = option(
        None, "CPU cores per trial (default: the cores divided by the number of runs, at least 1).", above=0
    )
    gpus_per_trial: float | None = option(
        None, "GPUs per trial; 0.25 puts four trials on one GPU (default: 1 if the cluster has GPUs).", above=0
    )
    max_concurrent: int | None = option(
        None, "Maximum number of concurrent trials (default: as many as fit).", at_least=1
    )
    storage: str = option("", "Folder or URI (s3://...) visible to every node, if nodes do not share --results.")
    max_failures: int = option(
        2, "How often a crashed trial resumes from its last checkpoint before it counts as failed.", at_least=0
    )


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions:
    """Options of execution, which change no result of a run."""

    data_root: tuple[Path, ...] = option((), "Folder of each data set, in the order of --data.")
    columns: tuple[str, ...] = option(
        (),
        "Columns of your table (folder): path=file_name label=class group=speaker, also fold and split.",
        default_text="the columns of these names",
    )
    published_as: str = option(
        "",
        "Name of the data set in published tables, if yours has another name, such as esc50.",
        flag="published-dataset",
    )
    equivalence_margin: float | None = option(
        None, "Also test equivalence to the reference within this many percentage points of accuracy.", above=0
    )
    metric: tuple[str, ...] = option(
        (),
        "Metrics to show beside accuracy in the table and as bars: balanced_accuracy, macro_f1, precision, recall, f1 "
        "(the last three weighted by class size), training_accuracy, validation_accuracy, epochs, best_epoch, "
        "time_to_converge, prediction_ms, seconds, parameters and others. Table 'metrics' always has all of them.",
    )
    curves: tuple[str, ...] = option(
        ("test_accuracy", "validation_accuracy", "train_loss"),
        "Learning curves to draw: test_accuracy, validation_accuracy, train_accuracy, test_loss, validation_loss, "
        "train_loss.",
    )
    download: bool = option(False, "Download the data set into --data-root first, if it can be downloaded.")
    on_bad_clip: str = option(
        "fail",
        "Unreadable clips: fail lists all of them before training; skip leaves them out.",
        choices=("fail", "skip"),
    )
    results: Path = option(Path("results"), "Folder of runs, tables and figures.")
    output: Path | None = option(
        None, "Write tables and figures to this folder instead, for example if --results is read-only."
    )
    folder_name: str = option(
        "",
        "Name of the folder of tables and figures inside RESULTS/COMMAND: letters, digits, '.', '-' and '_'.",
        flag="name",
        default_text="made from data set, network and runs",
    )
    style: Path | None = option(
        None, "TOML file with the style of tables and figures: sizes, font, colours, names, order, captions."
    )
    device: str = option("auto", "Device: auto, cpu, cuda or cuda:N.")
    threads: int = option(
        0,
        "CPU threads (0: all cores). Results on a CPU are bit-identical for the same number of threads.",
        at_least=0,
        at_most=MAX_THREADS,
    )
    retry_failed: bool = option(False, "Train failed runs again.")
    track: str = option(
        "none",
        "Also send the curves, options and metrics of the runs that are trained to an experiment tracker: mlflow, to "
        "MLFLOW_TRACKING_URI or else RESULTS/mlflow.db; or wandb (WANDB_MODE=offline needs no account).",
        choices=("none", "mlflow", "wandb"),
    )
    dry_run: bool = option(False, "Print the plan and stop.")
    json: bool = option(
        False,
        "Print the summary, or the plan of --dry-run, as one JSON object to stdout; everything else goes to stderr.",
    )
    cluster: RayOptions = RayOptions()

    @property
    def output_key(self) -> str:
        """Suffix of the folder of tables and figures: the options that differ from their defaults; "" if none do."""
        parts = list(dict.fromkeys(self.metric))
        parts += [f"margin-{self.equivalence_margin:g}"] if self.equivalence_margin is not None else []
        parts += [f"curves-{'-'.join(self.curves)}"] if self.curves != ExecutionOptions.curves else []
        parts += [f"published-{self.published_as}"] if self.published_as else []
        text = re.sub(r"[^A-Za-z0-9.-]+", "_", "-".join(parts))
        return text if len(text) <= MAX_KEY_LENGTH else short_digest(text)

    def problems(self) -> list[str]:
        """Return one message for each invalid value that the checks of `option` do not cover."""
        name = self.folder_name
        if not name or (re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) and len(name) <= MAX_NAME_LENGTH):
            return []
        return [
            f"--name {name}: use up to {MAX_NAME_LENGTH} letters, digits, '.', '-' and '_', without '.' or '-' first"
        ]
