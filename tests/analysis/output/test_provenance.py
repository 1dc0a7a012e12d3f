"""Footnotes for runs that were trained with other versions, threads or another device."""

import json
from pathlib import Path

import pytest

from analysis.condition_report import write_condition_report
from analysis.output.output_folder import OutputFolder
from analysis.output.provenance import provenance_notes
from core.config.run import Run
from core.datasets.dataset import Dataset
from core.plan import Plan, PlannedRun
from core.session import Session
from core.store.run_store import Store
from core.training.trainer import train


@pytest.fixture
def plan(run: Run, dataset: Dataset, session: Session) -> Plan:
    """Return a plan with one trained run."""
    run = run.replace(training__epochs=1, model__freeze="block4")
    train(run, dataset, session, label="run")
    return Plan("test", (PlannedRun("base", run, run),), {run.data.content: dataset})


def change(store: Store, run: Run, **values: object) -> None:
    """Rewrite the record of a run with other environment and versions."""
    record = json.loads((store.folder(run) / "run.json").read_text())
    for part in ("environment", "versions"):
        record[part] |= {name: value for name, value in values.items() if name in record[part]}
    rest = {name: record[name] for name in record if name not in ("id", "status", "config", "files", "digest")}
    store.write_record(run, record["status"], rest, files=tuple(record["files"]))


def test_provenance_notes_in_same_environment_is_empty(plan: Plan, session: Session) -> None:
    assert provenance_notes(plan, session) == []


def test_provenance_notes_name_versions_threads_and_device(plan: Plan, session: Session) -> None:
    change(session.store, plan.runs[0], torch="2.4.0", threads=7, commit="0" * 12, device="cuda:0", device_name="H200")
    (line,) = provenance_notes(plan, session)
    assert line.startswith("1 of 1 runs were trained in another environment: torch 2.4.0 (now ")
    assert "threads 7 (now 1)" in line
    assert "device cuda H200 (now cpu" in line
    assert "commit" not in line


def test_main_table_has_provenance_notes(plan: Plan, session: Session, tmp_path: Path) -> None:
    change(session.store, plan.runs[0], torch="2.4.0")
    write_condition_report(OutputFolder(plan, session, tmp_path / "analysis"), title="Condition", subject="{condition}")
    assert "torch 2.4.0 (now " in (tmp_path / "analysis" / "table.md").read_text()
