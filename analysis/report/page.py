"""Everything in a results folder on one page that needs no server and fetches nothing.

The page carries its style and its script, which its Content-Security-Policy admits by their hashes and nothing else,
and its pictures and sounds as data. Every word that comes from data is escaped (Jinja2's autoescape).
"""

import base64
import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from analysis.output.number_format import format_seconds
from analysis.published.numbers import FOLDER
from analysis.report import run_details as report_runs
from analysis.report.published_tables import CommandsByItem, WeightsLookup, assume_imagenet, make_published_table
from analysis.report.reader import Limits, Reader
from analysis.report.table_model import make_listing
from core.errors import UserError
from core.store.runs import HISTORY, Store

TEMPLATES = Path(__file__).parent / "templates"


def make_page(
    results: Path,
    limits: Limits | None = None,
    *,
    answers: CommandsByItem | None = None,
    starts: WeightsLookup = assume_imagenet,
    folder: Path = FOLDER,
) -> str:
    """Make the page.

    Parameters
    ----------
    results
        A results folder; nothing in it is changed but the index of its runs.
    limits
        How much the page may hold; what is left out for it is said on the page.
    answers
        Which commands answer an item of a report, by ``(report, item)``: their tables may stand beside its numbers.
    starts
        Which weights a report starts from, by report, data set and backbone.
    folder
        Where the reports are.

    Returns
    -------
    str
        HTML, the same for the same folder.

    Raises
    ------
    UserError
        Where there is no such folder, or neither a run nor an analysis in it.
    """
    view = _collect_contents(results, limits or Limits(), answers or {}, starts, folder)
    return _render(view)


def _collect_contents(
    results: Path, limits: Limits, answers: CommandsByItem, starts: WeightsLookup, folder: Path
) -> dict[str, Any]:
    """Gather what the template shows."""
    if not (results / "runs").is_dir():
        raise UserError(f"{results} holds no runs; run an ablation first, or name the folder of its --results")

    store = Store(results)
    records, damaged = report_runs.read_records(store)
    reader = Reader(results, limits)
    analyses = reader.analyses()
    if not records and not analyses:
        raise UserError(f"{results} holds no runs yet; run an ablation first, such as freeze --block 3")
    part_of: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for analysis in analyses:
        for run in analysis.runs:
            part_of[run].append((analysis.id, f"{analysis.ablation} in {analysis.folder}"))
    finished = [record for record in records.values() if record.finished]
    shown = [
        report_runs.make_run_detail(record, store, id=f"run-{k}", analyses=part_of[record.id])
        for k, record in enumerate(finished[: limits.details], start=1)
    ]
    damaged |= {one.run: why for one in shown if (why := store.check_file(one.run, HISTORY))}
    every = list(records.values())
    return {
        "analyses": analyses,
        "counts": reader.counts,
        "left_out": reader.left_out,
        "problems": reader.problems,
        "damaged": damaged,
        "finished": len(finished),
        "records": every,
        "shown": shown,
        "spent": format_seconds(sum(record.seconds.total for record in finished)),
        "datasets": report_runs.make_dataset_table(every, limit=limits.rows),
        "environments": report_runs.make_environment_table(every, limit=limits.rows),
        "runs": make_listing(
            report_runs.make_run_table(every, {run.run: run.id for run in shown}, limit=limits.runs),
            written=limits.written,
        ),
        "unfinished": report_runs.make_unfinished_table(every, limit=limits.rows),
        "published": make_published_table(analyses, records, answers, starts, folder=folder, limit=limits.rows),
        "found": set(records),
    }


def _render(view: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    own = {
        "style": Markup(style),
        "script": Markup(script),
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
    }
    return environment.get_template("report.html.j2").render(view | own)


def _csp_hash(text: str) -> str:
    """Return a source expression of a Content-Security-Policy that admits this text alone."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
