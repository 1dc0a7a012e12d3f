"""Run the command ``predict``: classify recordings with trained networks and write tables of the predictions."""

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ablations.planning.call import Call
from analysis.output.number_format import json_rows, to_csv
from analysis.output.output_folder import OutputFolder
from analysis.output.rendering import check_style
from analysis.output.writers import write_formats
from analysis.predictions import PARTS, Predictions, write_predictions, write_scores
from commands.ablation import show_conclusion, show_tables
from commands.cli.console import EscapingConsole
from commands.predict.options import Predict
from core.config.execution import ExecutionOptions
from core.config.options import list_problems
from core.datasets import parse_columns
from core.datasets.metadata import format_few
from core.datasets.new_recordings.labels_file import MATCH_KEYS, match_labels, read_labels
from core.datasets.new_recordings.unlabelled_clips import (
    UnlabelledClips,
    describe_low_rates,
    find_feature_rows,
    find_recordings,
    get_holdout,
    join_recordings,
)
from core.errors import UserError
from core.finished.open_run import find_finished_record, load_run_dataset
from core.finished.predict_recordings import PredictionOutputs, predict_logits
from core.finished.used_clips import NEW, TRAINING, find_used_clips
from core.plan import Plan, PlannedRun
from core.progress import Reporter
from core.session import Session
from core.store.record import Record
from core.store.run_store import Store
from core.system.atomic_files import short_digest

MAX_LISTED_RECORDINGS = 5  # unusable recordings listed on the terminal; left_out.csv lists all


def run_predict(call: Call) -> int:
    """Predict, write and show the results; return the exit status."""
    options: Predict = call.command
    names = ("results", "output", "style", "device", "threads", "json", "on_bad_clip")
    execution = ExecutionOptions(**{name: getattr(options, name) for name in names})
    if options.style:
        check_style(options.style)
    if problems := [*_option_problems(options), *list_problems(execution)]:
        raise UserError("; ".join(problems))
    with Reporter() as report:
        session = Session(execution, report)
        records = _load_records(options, session.store)
        sounds, targets = _find_recordings(options, records, session)
        ids = _submission_ids(options.submission, sounds.paths)
        outputs = predict_logits(records, sounds, session)
        parts = find_used_clips(records, sounds, session.store, progress=report)
        low_rates = describe_low_rates(sounds, max(record.run.clip.sr for record in records))
        for line in [*sounds.remarks, *low_rates, *_bad_recording_notes(outputs), *_used_clip_notes(parts, records)]:
            report.note(line)
    is_usable = np.isin(sounds.paths, outputs.paths)
    targets, parts = (None if each is None else each[is_usable] for each in (targets, parts))
    predictions = Predictions(records, outputs.paths, outputs.logits, targets, parts)
    plan = Plan(call.name, tuple(PlannedRun(record.id, record.run, records[0].run) for record in records), {})
    results = OutputFolder(plan, session, session.store.output / call.name / _folder_name(options, records))
    usable_ids = [id for id, usable in zip(ids, is_usable, strict=False) if usable]
    frame = write_predictions(results, predictions, submission=usable_ids)
    if options.on_bad_clip == "skip":
        bad = pd.DataFrame(list(outputs.bad), columns=["file", "reason"])
        results.files += write_formats(results.folder / "left_out", {".csv": to_csv(bad).encode()})
    if targets is not None:
        caption = "Held-out clips" if options.holdout else f"Predictions of {', '.join(map(str, options.paths))}"
        frame = write_scores(results, predictions, caption=caption, notes=_score_notes(predictions, outputs))
    results.write_description(call.line)
    console = EscapingConsole(stderr=options.json, soft_wrap=False)
    show_tables(results, console)
    show_conclusion(results, console)
    if options.json:
        files = [str(file) for file in results.files]
        counts = {"predicted": len(predictions.paths), "left_out": len(outputs.bad)}
        print(json.dumps({"ablation": call.name, "files": files, **counts, "rows": json_rows(frame)}))  # noqa: T201
    return 0


def _option_problems(options: Predict) -> list[str]:
    """Return a message for each missing option and each pair of options that exclude each other."""
    problems = []
    if not options.run:
        problems.append("predict needs --run: the id of a finished run, from the column run_ids of a table.csv")
    if options.holdout == bool(options.paths):
        problems.append("give either PATH (new recordings) or --holdout (clips that were held out of the run)")
    if options.holdout and options.labels:
        problems.append("--labels does not apply to --holdout, whose labels are in the data set; leave it out")
    if options.columns and not options.holdout:
        problems.append("--columns only applies with --holdout, to the table of the run's data set; leave it out")
    if options.data_root and not options.holdout:
        problems.append("--data-root only applies with --holdout; new recordings are given as predict PATH --run ID")
    paths = [word for word in options.run if "/" in word or "." in word]  # run ids contain neither / nor .
    if paths and not options.paths:
        return [f"--run {paths[0]}: give the recordings first: predict {paths[0]} --run ID"]
    return problems


def _load_records(options: Predict, store: Store) -> list[Record]:
    """Return the distinct records of ``--run`` and, with ``--all-seeds``, of runs that differ in the seed only."""
    by_id = {id: find_finished_record(id, store) for id in options.run}
    if options.all_seeds:
        seedless_ids = {record.run.replace(seed=0).id for record in by_id.values()}
        others = [record for record in store.records() if record.finished]
        by_id |= {record.id: record for record in others if record.run.replace(seed=0).id in seedless_ids}
    records = list(by_id.values())
    for record in records[1:]:
        checks = {
            "classes": record.class_names == records[0].class_names,
            "features": record.run.frontend.columns == records[0].run.frontend.columns,
        }
        for name in (name for name, is_same in checks.items() if not is_same):
            raise UserError(f"--run: {records[0].id} and {record.id} have different {name}, so they cannot be averaged")
    return records


def _find_recordings(
    options: Predict, records: Sequence[Record], session: Session
) -> tuple[UnlabelledClips, np.ndarray | None]:
    """Return the recordings to predict, and their class numbers (-1 if unknown), or None without labels."""
    if options.holdout:
        return _find_holdout(options, records, session)
    columns = records[0].run.frontend.columns
    parts = [find_feature_rows(path, columns) if columns else find_recordings(path) for path in options.paths]
    sounds = join_recordings(parts)
    if options.labels is None:
        return sounds, None
    truth = read_labels(options.labels)
    return sounds, match_labels(sounds.paths, truth, records[0].class_names, source=f"--labels {options.labels}")


def _find_holdout(options: Predict, records: Sequence[Record], session: Session) -> tuple[UnlabelledClips, np.ndarray]:
    """Return the held-out clips of the data set of the runs, and their class numbers."""
    data = records[0].run.data
    if not data.set_aside:
        raise UserError(f"--holdout: run {records[0].id} was trained without --holdout; give PATH instead")
    for record in records[1:]:
        if record.run.data.content != data.content:
            raise UserError(
                f"--holdout: runs {records[0].id} and {record.id} have different clips; give only one of these runs"
            )
    columns = parse_columns(options.columns)
    dataset = load_run_dataset(
        records[0].run, options.data_root, session.store, columns=columns, progress=session.report
    )
    return get_holdout(dataset), dataset.holdout["label"].to_numpy(np.int64)


def _submission_ids(submission: str, paths: Sequence[str]) -> list[str]:
    """Return the id of each recording in the submission; empty without a submission."""
    if submission == "none":
        return []
    ids = [MATCH_KEYS[submission](path) for path in paths]
    if twice := [id for id, times in Counter(ids).items() if times > 1]:
        raise UserError(
            f"--submission {submission}: {format_few(twice)} would be the id of several recordings; give "
            "--submission path"
        )
    return ids


def _folder_name(options: Predict, records: Sequence[Record]) -> str:
    """Return the name of the results folder, which depends on the networks, the recordings and the options."""
    paths = [str(path and path.absolute()) for path in (*options.paths, options.labels)]
    texts = [*(record.id for record in records), *paths, options.submission, options.on_bad_clip]
    digest = short_digest("\n".join(texts))
    return f"{records[0].id if len(records) == 1 else f'{len(records)}-networks'}-{digest}"


def _bad_recording_notes(outputs: PredictionOutputs) -> list[str]:
    """Return a note that lists unusable recordings, if there are any."""
    if not outputs.bad:
        return []
    problems = [f"{path}: {reason}" for path, reason in outputs.bad]
    listed = "; ".join(problems[:MAX_LISTED_RECORDINGS])
    total = len(outputs.bad) + len(outputs.paths)
    more = f"; and {len(problems) - MAX_LISTED_RECORDINGS} more" if len(problems) > MAX_LISTED_RECORDINGS else ""
    return [f"{len(problems)} of {total} recordings could not be used and are left out: {listed}{more}"]


def _used_clip_notes(parts: np.ndarray | None, records: Sequence[Record]) -> list[str]:
    """Return a note on recordings that the runs were trained, validated or tested on, or on a missing comparison."""
    runs = f"run{'s' if len(records) > 1 else ''} {format_few([record.id for record in records])}"
    if parts is None:
        return [f"the recordings are not compared with the clips of {runs}, whose SHA-256 are not stored"]
    counts = Counter(parts.tolist())
    if not (used := {part: counts[part] for part in PARTS if part != NEW and counts[part]}):
        return []
    by_part = ", ".join(f"{count:,} {part}" for part, count in used.items())
    line = (
        f"{sum(used.values()):,} of {len(parts):,} recordings are identical to clips of {runs} ({by_part}); see the "
        "column part"
    )
    return [f"problem: {line}" if TRAINING in used else line]


def _score_notes(predictions: Predictions, outputs: PredictionOutputs) -> list[str]:
    """Return notes about recordings without a score."""
    unknown = 0 if predictions.targets is None else int((predictions.targets < 0).sum())
    total = len(predictions.paths)
    notes = [f"{unknown} of {total} recordings are not scored, because they have no label."] if unknown else []
    return notes + ([f"{len(outputs.bad)} recordings could not be used and are not scored."] if outputs.bad else [])
