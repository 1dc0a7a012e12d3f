"""What the `predict` command does: networks from the store, sounds from anywhere, tables into the results."""

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich.console import Console

from analysis.output.folder import OutputFolder
from analysis.output.number_format import to_csv
from analysis.output.writers import write_formats
from analysis.predictions import Predictions, write_predictions, write_scores
from commands.ablation import json_rows, show_items
from commands.cli.parser import Call
from commands.predict.options import Predict
from core import datasets
from core.config.execution import ExecutionOptions
from core.config.options import list_problems
from core.datasets.metadata import format_few
from core.datasets.prediction.labels_file import MATCH_KEYS, match_labels, read_labels
from core.datasets.prediction.recordings import (
    UnlabelledClips,
    find_feature_rows,
    find_recordings,
    get_holdout,
    join_recordings,
)
from core.errors import UserError
from core.finished.open_run import find_finished_record
from core.finished.predict import PredictionOutputs, predict_logits
from core.io.atomic_files import short_digest
from core.plan import Plan, PlannedRun
from core.progress import Reporter
from core.session import Session
from core.store.record import Record
from core.store.runs import Store

MAX_LISTED_RECORDINGS = 5  # recordings named on the terminal that could not be used; left_out.csv names all


def run_predict(call: Call) -> int:
    """Predict, write and show; return the exit status."""
    asked: Predict = call.command
    named = ("results", "device", "threads", "json", "on_bad_clip")
    execution = ExecutionOptions(**{name: getattr(asked, name) for name in named})
    if found := [*_option_problems(asked), *list_problems(execution)]:
        raise UserError("; ".join(found))
    with Reporter() as report:
        session = Session(execution, report)
        records = _load_records(asked, session.store)
        sounds, targets = _find_recordings(asked, records, session)
        ids = _submission_ids(asked.submission, sounds.paths)
        outputs = predict_logits(records, sounds, session)
        for line in [*sounds.remarks, *_bad_recording_notes(outputs)]:
            report.note(line)
    kept = np.isin(sounds.paths, outputs.paths)
    said = Predictions(records, outputs.paths, outputs.logits, None if targets is None else targets[kept])
    plan = Plan(call.name, tuple(PlannedRun(record.id, record.run, records[0].run) for record in records), {})
    results = OutputFolder(plan, session, session.store.results / call.name / _folder_name(asked, records))
    frame = write_predictions(results, said, submission=[id for id, there in zip(ids, kept, strict=False) if there])
    if asked.on_bad_clip == "skip":
        bad = pd.DataFrame(list(outputs.bad), columns=["file", "reason"])
        results.files += write_formats(results.folder / "left_out", {".csv": to_csv(bad).encode()})
    if targets is not None:
        caption = "Held-out clips" if asked.holdout else f"Predictions of {', '.join(map(str, asked.paths))}"
        frame = write_scores(results, said, caption=caption, notes=_score_notes(said, outputs))
    results.write_description(call.line)
    show_items(results, Console(stderr=asked.json, highlight=False, soft_wrap=False))
    if asked.json:
        files, count = (
            [str(file) for file in results.files],
            {"predicted": len(said.paths), "left_out": len(outputs.bad)},
        )
        print(json.dumps({"ablation": call.name, "files": files, **count, "rows": json_rows(frame)}))  # noqa: T201
    return 0


def _option_problems(asked: Predict) -> list[str]:
    """Return a message for each missing option and each pair of options that exclude each other."""
    found = []
    if not asked.run:
        found.append("predict needs --run: the id of a finished run, from the column run_ids of a table.csv")
    if asked.holdout == bool(asked.paths):
        found.append("give either PATH (new recordings) or --holdout (clips that were held out of the run)")
    if asked.holdout and asked.labels:
        found.append("--labels does not apply to --holdout, whose labels are in the data set; leave it out")
    if asked.data_root and not asked.holdout:
        found.append("--data-root only applies with --holdout; new recordings are given as predict PATH --run ID")
    misplaced = [word for word in asked.run if "/" in word or "." in word]  # no id has these
    if misplaced and not asked.paths:
        return [f"--run {misplaced[0]}: give the recordings first: predict {misplaced[0]} --run ID"]
    return found


def _load_records(asked: Predict, store: Store) -> list[Record]:
    """Return the records of the runs asked for, each once."""
    found = {id: find_finished_record(id, store) for id in asked.run}
    if asked.all_seeds:
        wanted = {record.run.replace(seed=0).id for record in found.values()}
        others = [record for record in store.records() if record.finished]
        found |= {record.id: record for record in others if record.run.replace(seed=0).id in wanted}
    records = list(found.values())
    for record in records[1:]:
        same = {
            "classes": record.class_names == records[0].class_names,
            "features": record.run.frontend.columns == records[0].run.frontend.columns,
        }
        for what in (what for what, is_same in same.items() if not is_same):
            raise UserError(f"--run {records[0].id} {record.id}: have other {what}, so there is nothing to average")
    return records


def _find_recordings(
    asked: Predict, records: Sequence[Record], session: Session
) -> tuple[UnlabelledClips, np.ndarray | None]:
    """Return what is to be predicted, and the class number of each where it is known at all."""
    if asked.holdout:
        return _find_holdout(asked, records, session)
    columns = records[0].run.frontend.columns
    found = [find_feature_rows(path, columns) if columns else find_recordings(path) for path in asked.paths]
    sounds = join_recordings(found)
    if asked.labels is None:
        return sounds, None
    truth = read_labels(asked.labels)
    return sounds, match_labels(sounds.paths, truth, records[0].class_names, source=f"--labels {asked.labels}")


def _find_holdout(asked: Predict, records: Sequence[Record], session: Session) -> tuple[UnlabelledClips, np.ndarray]:
    data = records[0].run.data
    if not data.set_aside:
        raise UserError(f"--holdout: run {records[0].id} held no clips out; give PATH")
    for record in records[1:]:
        if record.run.data.content != data.content:
            raise UserError(f"--holdout: runs {records[0].id} and {record.id} are of other clips; name one")
    loaded = datasets.load_dataset(data.name, asked.data_root)
    arranged = datasets.select(loaded, **data.selection)
    if arranged.compute_fingerprint(session.store.cache) != data.content:
        raise UserError(f"--holdout: the clips in {loaded.root} are not those of run {records[0].id}")
    return get_holdout(loaded, arranged), arranged.holdout["label"].to_numpy(np.int64)


def _submission_ids(submission: str, paths: Sequence[str]) -> list[str]:
    """Return what each is called in a submission; nothing where none is wanted."""
    if submission == "none":
        return []
    ids = [MATCH_KEYS[submission](path) for path in paths]
    if twice := [id for id, times in Counter(ids).items() if times > 1]:
        raise UserError(
            f"--submission {submission}: {format_few(twice)} would be the id of several; say --submission path"
        )
    return ids


def _folder_name(asked: Predict, records: Sequence[Record]) -> str:
    """Return a folder of its own for every different question, the same for the same one."""
    places = [str(path and path.absolute()) for path in (*asked.paths, asked.labels)]
    said = [*(record.id for record in records), *places, asked.submission, asked.on_bad_clip]
    question = short_digest("\n".join(said))
    return f"{records[0].id if len(records) == 1 else f'{len(records)}-networks'}-{question}"


def _bad_recording_notes(outputs: PredictionOutputs) -> list[str]:
    """Name the recordings that could not be used."""
    if not outputs.bad:
        return []
    named = [f"{path}: {reason}" for path, reason in outputs.bad]
    total = len(outputs.bad) + len(outputs.paths)
    more = f"; and {len(named) - MAX_LISTED_RECORDINGS} more" if len(named) > MAX_LISTED_RECORDINGS else ""
    return [
        f"{len(named)} of {total} could not be used and are left out: {'; '.join(named[:MAX_LISTED_RECORDINGS])}{more}"
    ]


def _score_notes(said: Predictions, outputs: PredictionOutputs) -> list[str]:
    """Say what is not scored."""
    unknown = 0 if said.targets is None else int((said.targets < 0).sum())
    found = [f"{unknown} of {len(said.paths)} are not scored: the truth does not name them."] if unknown else []
    return found + ([f"{len(outputs.bad)} could not be used and are not scored."] if outputs.bad else [])
