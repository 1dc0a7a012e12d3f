"""A results folder for tests of the report page, with names that would inject HTML if they were not escaped."""

from pathlib import Path
from types import SimpleNamespace

import finished_runs
import numpy as np
import pandas as pd
import soundfile
import torch

from ablations import STUDIES_FOLDER
from analysis.output import style
from analysis.output.number_format import format_percent, format_points
from analysis.output.output_folder import OutputFolder
from analysis.output.tables import Column
from analysis.plots import by_condition
from analysis.published.comparison import write_published_comparison
from core.config.execution import ExecutionOptions
from core.config.run import Run
from core.plan import Plan, PlannedRun
from core.store.run_store import FAILED, RUNNING, Store
from core.training import metrics

HOSTILE = "<script>alert(1)</script>"
CLASSES = ["dog_bark", "<img src=x onerror=alert(1)>", '" autofocus onfocus="alert(1)', "siren"]
CLIP = '"><script>alert(1)</script>.wav'
REASON = "FloatingPointError: loss is nan </td><script>alert(1)</script>"
ROWS = {
    "none": {"accuracy": 0.862, "accuracy_std": 0.018, "delta": 0.0, "delta_best_epoch": 0.0, "runs": 2, "failed": 0},
    "block3": {
        "accuracy": 0.675,
        "accuracy_std": np.nan,
        "delta": -0.2,
        "delta_best_epoch": -0.2,
        "runs": 2,
        "failed": 1,
    },
}
EMBEDDED_CLIP = "bass/032-fluidr3-032.ogg"


def make_store(folder):
    """Write a results folder with runs, an analysis with a table and a figure, and one with attribution maps."""
    store = Store(folder)
    base = Run().replace(data__name="esc50", data__content="c0ffee" * 10, model__backbone="densenet201")
    frozen = base.replace(model__freeze="block3")
    for run, right in ((base, 0.9), (frozen, 0.7), (base.replace(seed=1), 0.85)):
        finish(store, run, right=right)
    environment = {"environment": {"device": "cpu", "device_name": HOSTILE, "threads": 1}, "versions": {"torch": "2"}}
    failed = frozen.replace(seed=1)
    store.write_record(failed, FAILED, environment | {"reason": REASON})
    store.write_record(base.replace(seed=2), RUNNING, environment)
    (store.runs / "0123456789ab").mkdir()
    (store.runs / "0123456789ab" / "run.json").write_text('{"status": "finished"}')
    planned = [
        PlannedRun(condition, run.replace(seed=seed), base.replace(seed=seed))
        for seed in (0, 1)
        for condition, run in (("none", base), ("block3", frozen))
    ]
    session = SimpleNamespace(store=store, device=torch.device("cpu"), threads=1, execution=ExecutionOptions())
    plan, path = Plan("freeze", tuple(planned), {}), folder / "freeze" / 'a"b<i>'
    freeze = OutputFolder(plan, session, path, published_as="esc50")
    write_conditions(freeze)
    freeze.write_description(f"python run_ablation.py freeze --data-root '{HOSTILE}'")
    write_maps(OutputFolder(Plan("attribute", tuple(planned[:2]), {}), session, folder / "attribute" / "some"))
    return folder


def finish(store, run, *, right, classes=CLASSES):
    """Write a finished run that gives each of 10 clips of a class the right answer with probability `right`."""
    rng = np.random.default_rng(run.seed)
    targets = np.repeat(np.arange(len(classes)), 10)
    logits = np.eye(len(classes))[targets] * np.where(rng.random(len(targets)) < right, 4, -4)[:, None]
    logits += rng.normal(size=logits.shape)
    scores = metrics.summarise(logits, targets) | {"accuracy_best_epoch": right, "best_epoch": 2, "epochs": 3}
    history = [
        {"epoch": epoch, "train_loss": 2 / epoch, "train_accuracy": 0.3 * epoch, "train_seconds": 1.0}
        | {"test_loss": 2.2 / epoch, "test_accuracy": 0.28 * epoch, "evaluation_seconds": 0.1}
        for epoch in (1, 2, 3)
    ]
    values = {
        "environment": {"device": "cpu", "device_name": "", "threads": 1},
        "versions": {"python": "3.11.7", "torch": "2.15.0", "commit": "abc"},
        "metrics": scores,
        "class_names": list(classes),
        "parameters": 1000,
        "trainable_parameters": 900,
        "clips": {"train": 100, "validation": 0, "test": len(targets)},
        "bad_clips": [],
        "seconds": {"preparation": 1.0, "training": 3.0, "evaluation": 0.3},
    }
    store.write_record(run, RUNNING, {})
    finished_runs.finish(store, run, logits, targets, history=history, **values)


def write_conditions(results):
    """Write a table and a figure of accuracy by condition; one condition has a failed run."""
    ids = {condition: [p.run.id for p in results.plan.planned if p.condition == condition] for condition in ROWS}
    frame = pd.DataFrame(
        [
            {"condition": condition, **row, "delta_best_epoch": row["delta"], "run_ids": ids[condition]}
            for condition, row in ROWS.items()
        ]
    )
    columns = [
        Column("condition", "Frozen through block"),
        Column("accuracy", "Accuracy %", format_percent, best="max", std="accuracy_std"),
        Column("delta", "Change", format_points),
    ]
    caption = "Freeze: densenet201 on esc50"
    rows = frame.assign(data="esc50", backbone="densenet201")
    results.write_table("table", frame, columns, caption=caption, footnotes=[f"One run failed: {REASON}."])
    comparison = {"dataset": "esc50", "difference": -0.2, "low": -0.9, "high": 0.5, "pairs": 2, "folds": 2}
    results.write_table(
        "comparisons",
        pd.DataFrame([{"condition": "block3", **comparison}]),
        [Column("condition", "Frozen through block"), Column("difference", "Difference", format_points)],
        caption=f"{caption}: comparison with the reference",
    )
    results.sentences.append(f"Freezing through block3 changes accuracy: {HOSTILE}.")
    results.write_figure(
        "figure",
        frame.drop(columns="run_ids"),
        by_condition.draw_accuracy_by_condition,
        caption=f"{caption}: accuracy on the test fold by condition.",
        options={"xlabel": "Frozen through block", "reference": "none"},
    )
    item = {"study": "rethinking-cnn", "item": "Figure 2c", "title": "Paper", "folder": STUDIES_FOLDER}
    write_published_comparison(results, rows, **item, name="published-figure-2c", in_study=False)


def write_maps(results):
    """Write maps of an embedded clip (two), of a stored clip and of a missing clip, and an item outside the folder."""
    figure, ax = style.new_figure()
    ax.imshow(np.eye(8))
    style.save_figure(figure, results.folder / "map", pd.DataFrame({"value": [1.5, 2.5]}))
    (results.folder / "sounds").mkdir()
    soundfile.write(results.folder / "sounds" / "1.wav", 0.1 * np.sin(np.arange(8000) / 3), 8000)
    outside = Path("..", "..", "..", "secret.png")
    (results.folder / outside).write_bytes((results.folder / "map.png").read_bytes())
    item = {"kind": "map", "name": "map", "files": ["map.png", "map.pdf"], "true": CLASSES[1], "error": 0.0213}
    results.items += [
        item | {"clip": EMBEDDED_CLIP, "predicted": "siren", "caption": "Attribution of the reference"},
        item | {"clip": EMBEDDED_CLIP, "predicted": CLASSES[2], "caption": "Attribution of the frozen network"},
        item | {"clip": CLIP, "sound": "sounds/1.wav", "predicted": "siren", "caption": "{{ 7 * 7 }}" + HOSTILE},
        item | {"clip": "gone.wav", "predicted": "siren", "caption": "A clip that was moved"},
        {"kind": "figure", "name": "stray", "caption": "Out of its folder", "files": [outside.as_posix()]},
    ]
    results.write_description("python run_ablation.py attribute --misclassified")
