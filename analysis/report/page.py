"""The report page: everything in a results folder, in one HTML file that needs no server and loads nothing.

The page contains its style sheet and script, allowed by hash in its Content-Security-Policy, and its images and sounds
as data URIs. All text from data is escaped (Jinja2's autoescape).
"""

import base64
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from analysis.output.number_format import format_seconds
from analysis.report import run_details
from analysis.report.forest import make_forest
from analysis.report.published_tables import make_published_table
from analysis.report.read_analyses import Analysis, Limits, Reader
from analysis.report.table_model import make_listing
from core.errors import UserError, escape_controls
from core.store.run_store import HISTORY, Store

TEMPLATES = Path(__file__).parent / "templates"


def make_page(results: Path, limits: Limits | None = None) -> str:
    """Return the page as HTML.

    The same folder always gives the same page.

    Parameters
    ----------
    results
        Results folder. Its files are not changed.
    limits
        Maximum sizes of the page; the page names what it leaves out.

    Raises
    ------
    UserError
        If the folder does not exist, or has neither runs nor analyses.
    """
    return escape_controls(_render(_collect_contents(results, limits or Limits())))


def _collect_contents(results: Path, limits: Limits) -> dict[str, Any]:
    """Return the variables of the template."""
    if not (results / "runs").is_dir():
        raise UserError(f"{results} has no runs; run an ablation first, or name the folder of its --results")

    store = Store(results, read_only=True)
    records, damaged = run_details.read_records(store)
    reader = Reader(results, limits, records)
    analyses = reader.read_analyses()
    if not records and not analyses:
        raise UserError(f"{results} has no runs yet; run an ablation first, such as freeze --block 3")
    analyses_of_run: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for analysis in analyses:
        for run in analysis.runs:
            analyses_of_run[run].append((analysis.id, f"{analysis.title} in {analysis.folder}"))
    finished = [record for record in records.values() if record.finished]
    details = [
        run_details.make_run_detail(record, store, id=f"run-{k}", analyses=analyses_of_run[record.id])
        for k, record in enumerate(finished[: limits.details], start=1)
    ]
    damaged |= {detail.run: why for detail in details if (why := store.check_file(detail.run, HISTORY))}
    all_records = list(records.values())
    run_table = run_details.make_run_table(
        all_records, {detail.run: detail.id for detail in details}, limit=limits.runs
    )
    return {
        "analyses": analyses,
        "forest": make_forest(analyses),
        "filters": _make_filters(analyses),
        "counts": reader.counts,
        "left_out": reader.left_out,
        "problems": reader.problems,
        "damaged": damaged,
        "finished": len(finished),
        "details": details,
        "training_time": format_seconds(sum(record.seconds.total for record in finished)),
        "datasets": run_details.make_dataset_table(all_records, limit=limits.rows),
        "environments": run_details.make_environment_table(all_records, limit=limits.rows),
        "runs": make_listing(run_table, n_first=limits.html_runs),
        "unfinished": run_details.make_unfinished_table(all_records, limit=limits.rows),
        "published": make_published_table(analyses, limit=limits.rows),
        "run_ids": set(records),
    }


def _make_filters(analyses: Sequence[Analysis]) -> dict[str, tuple[str, list[str]]]:
    """Return title and values of each filter with more than one value."""
    filters = {
        "data": ("Data set", sorted({name for analysis in analyses for name in analysis.datasets})),
        "backbone": ("Backbone", sorted({name for analysis in analyses for name in analysis.backbones})),
    }
    return {name: (title, values) for name, (title, values) in filters.items() if len(values) > 1}


def _render(contents: dict[str, Any]) -> str:
    """Return the HTML of the page from the variables of the template."""
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    assets = {
        "style": Markup(style),
        "script": Markup(script),
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
    }
    return environment.get_template("report.html.j2").render(contents | assets)


def _csp_hash(text: str) -> str:
    """Return the source expression of a Content-Security-Policy that allows only this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
