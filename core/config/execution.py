"""Where and on what runs are made, and where they are kept: decides nothing about their outcome, and is in no id."""

import os
from dataclasses import dataclass
from pathlib import Path

from core.config.options import option

MOST_THREADS = 16 * (os.cpu_count() or 1)  # many more than there are cores only take memory; far too many crash


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Ray, where runs become trials; decides nothing about their outcome."""

    ray: str = option(
        "", "Run as Ray Tune trials: local starts Ray on this machine; auto or HOST:PORT joins a cluster."
    )
    cpus_per_trial: float | None = option(
        None, "CPU cores of a trial (default: the cores shared out between the runs, one at least).", above=0
    )
    gpus_per_trial: float | None = option(
        None, "GPUs of a trial; 0.25 puts four trials on one GPU (default: 1 where the cluster has any).", above=0
    )
    max_concurrent: int | None = option(None, "Most trials at a time (default: as many as fit).", at_least=1)
    storage: str = option(
        "", "Folder or URI (s3://...) that every node sees, where nodes do not share --results: runs pass through it."
    )
    max_failures: int = option(
        2, "How many times a trial that died goes on from its last checkpoint before it has failed.", at_least=0
    )


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where runs are made and kept; decides nothing about their outcome."""

    data_root: tuple[Path, ...] = option((), "Folder of each data set, in the order of --data.")
    published_as: str = option(
        "", "Name that published numbers have for the data set, where it is your own, such as esc50 for a folder of it."
    )
    equivalence_margin: float | None = option(
        None,
        "Largest difference of accuracy, in percentage points, that does not matter: which conditions are shown to be "
        "equal to the reference within it is tested.",
        above=0,
    )
    metric: tuple[str, ...] = option(
        (),
        "Metrics to show beside accuracy, as columns of the table and as bars: balanced_accuracy, macro_f1, precision, "
        "recall, f1 (these three weighted by clips), training_accuracy, validation_accuracy, epochs, best_epoch, "
        "time_to_converge, prediction_ms, seconds, parameters and others; the table 'metrics' always has them.",
    )
    download: bool = option(False, "Fetch the data set into --data-root first, where it can be fetched.")
    on_bad_clip: str = option(
        "fail",
        "A clip that cannot be used: fail names all of them before anything is trained; skip leaves them out.",
        choices=("fail", "skip"),
    )
    results: Path = option(Path("results"), "Folder of the runs, tables and figures.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    threads: int = option(
        0,
        "CPU threads (0: every core); CPU results are bit-identical for one number.",
        at_least=0,
        at_most=MOST_THREADS,
    )
    retry_failed: bool = option(False, "Train runs again that failed before.")
    dry_run: bool = option(False, "Print the plan and stop.")
    json: bool = option(False, "Print the summary as one JSON object on stdout, everything else on stderr.")
    cluster: Cluster = Cluster()
