"""Run the command ``runs``: list, show, compare, label, check, export and delete runs."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablations.planning.call import Call
from analysis.output.number_format import (
    format_metric,
    format_number,
    format_option,
    format_percent,
    format_seconds,
    is_percentage,
    json_rows,
    to_csv,
)
from analysis.output.tables import align_columns
from analysis.output.writers import write_formats
from analysis.report.read_analyses import find_used_runs
from commands.cli.console import EscapingConsole
from commands.runs.options import ACTIONS, Runs
from core.errors import UserError, escape_controls, unknown_name_error
from core.store import housekeeping
from core.store.record import FAILED, Record
from core.store.run_store import Store
from core.store.run_table import (
    METRICS,
    check_column,
    find_differing_columns,
    list_changed_options,
    make_run_table,
    option_columns,
    select_rows,
)

ID_LENGTH = 12
SHOWN_IF_EQUAL = ("data", "backbone", "fold", "seed")  # columns of a list even if all its runs have the same value
SHOWN_METRICS = ("accuracy", "macro_f1", "seconds")
SHOWN_FACTS = ("status", "label", "reason")  # columns of a list if its runs differ in them
BARS = "▁▂▃▄▅▆▇█"
CURVES = ("train_loss", "validation_loss", "test_loss", "train_accuracy", "validation_accuracy", "test_accuracy")
MAX_SPARKS = 60  # characters of a learning curve


def run(call: Call) -> int:
    """Run the action that the first word names; return 1 if `verify` finds damage, otherwise 0."""
    options: Runs = call.command
    action, words = (options.action[0], options.action[1:]) if options.action else ("list", ())
    if action not in ACTIONS:
        raise unknown_name_error("action of runs", action, ACTIONS)
    if not (options.results / "runs").is_dir():
        raise UserError(f"{options.results} has no runs; run an ablation first, or name the folder of its --results")
    store = Store(options.results, read_only=action in ("list", "show", "diff", "export", "verify"))
    with store.cached_records():
        actions: dict[str, Callable[[Store, Sequence[str], Runs, Console], int]] = {
            "list": _list,
            "show": _show,
            "diff": _diff,
            "export": _export,
            "label": _label,
            "verify": _verify,
            "delete": _delete,
            "prune": _prune,
        }
        return actions[action](store, words, options, EscapingConsole())


def _list(store: Store, words: Sequence[str], options: Runs, console: Console) -> int:
    """Print one line per run."""
    _check_count(words, 0, 0, "list", "only options")
    runs = _select(store, options)
    if options.json:
        print(json.dumps(json_rows(runs.assign(ended=runs["ended"].astype(str)))))  # noqa: T201
        return 0
    total = len(runs)
    shown = runs.head(options.limit) if options.limit else runs
    if options.columns:
        columns = [check_column(runs, name, "--columns") for name in options.columns]
    else:
        columns = _choose_columns(runs)
    columns = [name for name in columns if name != "run"]
    header = ["run", *columns]
    cells = [[_format(name, value) for value in shown[name].tolist()] for name in header]
    rows = list(zip(*cells, strict=True))
    print(escape_controls(align_columns(header, rows)))  # noqa: T201 (rich takes a second for 10,000 lines)
    same = {name: shown[name].iloc[0] for name in ("data", "backbone") if len(shown) and name not in columns}
    facts = [f"{len(shown)} of {total} runs" if len(shown) < total else f"{total} run{'s' * (total != 1)}"]
    facts += [f"all with {name} {value}" for name, value in same.items() if shown[name].nunique() == 1]
    console.print(f"{', '.join(facts)} in {store.runs}", markup=False, soft_wrap=True)
    return 0


def _select(store: Store, options: Runs) -> pd.DataFrame:
    """Return the table of the runs of ``--where`` in the order of ``--sort``."""
    runs = select_rows(make_run_table(store), options.where)
    name = check_column(runs, options.sort.removeprefix("-"), "--sort") if options.sort else "ended"
    descending = options.sort.startswith("-") or is_percentage(name)
    return runs.sort_values([name, "run"], ascending=[not descending, True], na_position="last", kind="stable")


def _choose_columns(runs: pd.DataFrame) -> list[str]:
    """Return the columns of a list: facts and options that differ between the runs, and metrics with a value."""
    differing = find_differing_columns(runs, [*SHOWN_FACTS, *option_columns()])
    names = [name for name in (*SHOWN_FACTS, *option_columns()) if name in differing or name in SHOWN_IF_EQUAL]
    return [*names, *(name for name in SHOWN_METRICS if runs[name].notna().any())]


def _show(store: Store, words: Sequence[str], options: Runs, console: Console) -> int:
    """Print options, scores, learning curves and files of one run."""
    _check_count(words, 1, 1, "show", "one id")
    record = _read(store, words[0])
    (row,) = make_run_table(store, [record]).to_dict("records")
    if options.json:
        print(json.dumps(json_rows(pd.DataFrame([{**row, "ended": str(row["ended"])}]))[0]))  # noqa: T201
        return 0
    table = Table(show_header=False, box=None, pad_edge=False)
    facts = {
        "Run": f"{record.id} ({record.status})",
        "Label": row["label"],
        "Reason": record.reason,
        "Ended": f"{row['ended']:%Y-%m-%d %H:%M} UTC",
        "Options": " ".join(_as_words(list_changed_options(record))),
        "Results": ", ".join(f"{name} {_format(name, row[name])}" for name in METRICS if _is_known(row[name] or "")),
        "Time": format_seconds(record.seconds.total) if record.seconds.total else "",
        "Parameters": f"{record.trainable_parameters:,} trained of {record.parameters:,}" if record.parameters else "",
        "Machine": " ".join(filter(None, (record.environment.device, record.environment.device_name))),
    }
    for title, text in facts.items():
        if text:
            table.add_row(title, Text(text))
    for title, text in _draw_curves(store, record).items():
        table.add_row(title, text)
    files = sorted(path for path in store.folder(record.id).iterdir() if path.is_file())
    table.add_row("Files", "\n".join(f"{file.name} ({_format_size(file.stat().st_size)})" for file in files))
    console.print(table)
    console.print(f"Folder: {store.folder(record.id)}", markup=False, soft_wrap=True)
    return 0


def _draw_curves(store: Store, record: Record) -> dict[str, str]:
    """Return each learning curve as a line of bars, with its first and its last value."""
    if not record.finished:
        return {}
    curves = {}
    for name, values in store.history_columns(record.id, CURVES).items():
        known = [float(value) for value in values if math.isfinite(value)]
        if known:
            is_share = name.endswith("accuracy")
            ends = (known[0], known[-1])
            first, last = (f"{format_percent(value)} %" if is_share else format_number(value) for value in ends)
            curves[name.replace("_", " ").capitalize()] = f"{draw_sparkline(known)}  {first} to {last}"
    return curves


def draw_sparkline(values: Sequence[float]) -> str:
    """Return values as a text of at most about `MAX_SPARKS` bars; the eight heights range from minimum to maximum."""
    step = max(1, math.ceil(len(values) / MAX_SPARKS))
    selected = [*values[:-1][::step], values[-1]]
    low, high = min(selected), max(selected)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in selected)


def _diff(store: Store, words: Sequence[str], options: Runs, console: Console) -> int:
    """Print the options and scores in which two runs differ."""
    _check_count(words, 2, 2, "diff", "two ids")
    runs = make_run_table(store, [_read(store, word) for word in words])
    first, second = runs.to_dict("records")
    names = [*SHOWN_FACTS, *option_columns(), *METRICS, "seconds", "parameters", "trainable_parameters"]
    differing = find_differing_columns(runs, names)
    if options.json:
        rows = json_rows(pd.DataFrame([{"name": n, "first": first[n], "second": second[n]} for n in differing]))
        print(json.dumps(rows))  # noqa: T201
        return 0
    table = Table("", first["run"], second["run"], box=None, pad_edge=False, header_style="bold")
    for name in differing:
        table.add_row(name, *(Text(_format(name, row[name])) for row in (first, second)))
    console.print(table if differing else "The runs do not differ.")
    return 0


def _export(store: Store, words: Sequence[str], options: Runs, console: Console) -> int:
    """Write the table of runs as CSV or Parquet."""
    _check_count(words, 1, 1, "export", "one file, such as runs.csv or runs.parquet")
    file = Path(words[0])
    runs = _select(store, options)
    if file.suffix == ".csv":
        content = to_csv(runs).encode()
    elif file.suffix == ".parquet":
        content = runs.to_parquet(index=False)
    else:
        raise UserError(f"{file}: give a file ending in .csv or .parquet")
    write_formats(file.with_suffix(""), {file.suffix: content})
    console.print(f"{file} ({len(runs)} runs, {len(runs.columns)} columns)", markup=False, soft_wrap=True)
    return 0


def _label(store: Store, words: Sequence[str], options: Runs, console: Console) -> int:
    """Give a run a label, or remove its label."""
    _check_count(words, 1, math.inf, "label", "an id and a text")
    id, text = store.find_id(words[0]), " ".join(words[1:])
    store.write_label(id, text)
    console.print(f"{id}: {text}" if text else f"{id}: label removed", markup=False, soft_wrap=True)
    return 0


def _verify(store: Store, words: Sequence[str], options: Runs, console: Console) -> int:
    """Compare the files of runs with their checksums; return 1 if one is damaged."""
    damage: dict[str, str] = {} if words else dict(store.damaged_runs())
    ids = [store.find_id(word) for word in words] or [record.id for record in store.records()]
    for id in ids:
        record = store.record(id)
        if record is None:
            damage[id] = store.find_damage(id) or "it has no record"
            continue
        problems = [problem for name in record.files if (problem := store.check_file(id, name))]
        if problems:
            damage[id] = "; ".join(problems)
    for id, problem in damage.items():
        console.print(f"{id}: {problem}", markup=False, soft_wrap=True)
    intact = len(set(ids) - set(damage))
    advice = "; delete their folders, and repeat the commands that trained them" if damage else ""
    console.print(f"{intact} runs intact, {len(damage)} damaged{advice}", markup=False, soft_wrap=True)
    return 1 if damage else 0


def _delete(store: Store, words: Sequence[str], options: Runs, console: Console) -> int:
    """Move runs, given by ids or by ``--where``, to the trash."""
    if bool(words) == bool(options.where):
        raise UserError("runs delete: give either ids or --where")
    ids = [store.find_id(word) for word in words] if words else list(_select(store, options)["run"])
    _move_to_trash(store, list(dict.fromkeys(ids)), options, console)
    return 0


def _prune(store: Store, words: Sequence[str], options: Runs, console: Console) -> int:
    """Remove failed or unused runs, old files of the cache, and the trash."""
    _check_count(words, 0, 0, "prune", "only options")
    if not (options.failed or options.unused or options.cache_days is not None or options.trash):
        raise UserError("runs prune: give --failed, --unused, --cache-days or --trash")
    if options.failed:
        _move_to_trash(store, [r.id for r in store.records() if r.status == FAILED], options, console, kind="failed ")
    if options.unused:
        used = find_used_runs(store.results)
        unused = [record.id for record in store.records() if record.finished and record.id not in used]
        _move_to_trash(store, unused, options, console, kind="unused ")
    for chosen, name, folders in (
        (options.cache_days is not None, "cache entries", lambda: _old_entries(store, options.cache_days or 0)),
        (options.trash, "folders of the trash", lambda: housekeeping.list_trash(store)),
    ):
        if chosen:
            removal = housekeeping.measure(folders())
            if options.yes:
                housekeeping.delete_folders(removal.folders)
            done = "deleted" if options.yes else "would be deleted; add --yes to delete them"
            text = f"{len(removal.folders)} {name} ({_format_size(removal.size)}) {done}"
            console.print(text, markup=False, soft_wrap=True)
    return 0


def _old_entries(store: Store, days: float) -> list[Path]:
    return housekeeping.find_old_cache_entries(store, days=days)


def _move_to_trash(store: Store, ids: Sequence[str], options: Runs, console: Console, *, kind: str = "") -> None:
    """Print the runs to delete and their total size; with ``--yes``, move them to the trash."""
    removal = housekeeping.measure(store.folder(id) for id in ids)
    for id in ids:
        record = store.record(id)
        text = " ".join(_as_words(list_changed_options(record))) if record else "damaged"
        console.print(f"{id}  {text}", markup=False, soft_wrap=True)
    amount = f"{len(ids)} {kind}run{'s' * (len(ids) != 1)} ({_format_size(removal.size)})"
    if not options.yes or not ids:
        more = "would be moved to the trash; add --yes to move them" if ids else "to delete"
        console.print(f"{amount} {more}", markup=False, soft_wrap=True)
        return
    trash = housekeeping.move_to_trash(store, ids)
    console.print(f"{amount} moved to {trash}", markup=False, soft_wrap=True)


def _read(store: Store, word: str) -> Record:
    """Return the record of a run by its id, which may be shortened."""
    id = store.find_id(word)
    record = store.record(id)
    if record is None:
        raise UserError(f"run {id} is damaged ({store.find_damage(id) or 'it has no record'})")
    return record


def _check_count(words: Sequence[str], least: float, most: float, action: str, expected: str) -> None:
    """Raise `UserError` unless an action has `least` to `most` words; `expected` describes them."""
    if not least <= len(words) <= most:
        raise UserError(f"runs {action}: give {expected}, not {' '.join(words) or 'nothing'}")


def _as_words(options: dict[str, Any]) -> list[str]:
    """Return options in the form of a command line, one text per option."""
    words = []
    for flag, value in options.items():
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            items = value if isinstance(value, tuple | list) else (value,)
            words.append(" ".join([f"--{flag}", *map(format_option, items)]))
    return words


def _format(name: str, value: Any) -> str:
    """Return a cell of a table of runs."""
    if name == "ended":
        return f"{value:%Y-%m-%d %H:%M}"
    if not _is_known(value):
        return "–"
    if name in (*METRICS, *SHOWN_METRICS):
        return format_metric(value, name) + " %" * is_percentage(name)
    return format_option(value)


def _is_known(value: Any) -> bool:
    return not (isinstance(value, float) and math.isnan(value)) and value != ""


def _format_size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
