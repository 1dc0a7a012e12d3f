"""Footnotes for runs that were trained with other library versions, on another device, or with other threads.

These facts are not part of the run id, so that finished runs remain valid after an upgrade. They can change the last
digits of a result, so tables name the differences.
"""

from collections import Counter

from core.plan import Plan
from core.session import Session
from core.store.record import Record
from core.training.results import collect_provenance


def provenance_notes(plan: Plan, session: Session) -> list[str]:
    """Return one footnote for each set of differences between the environment of finished runs and this session.

    The list is empty if every run was trained in the environment of this session.
    """
    here = collect_provenance(session)
    now = {**here["versions"], "device": _device_name(here["environment"]), "threads": str(session.threads)}
    records = [record for run in plan.runs if (record := session.store.finished(run))]
    counts = Counter(differences for record in records if (differences := _differences(record, now)))
    return [
        f"{count} of {len(records)} runs were trained in another environment: {text}. Their last digits may differ."
        for text, count in counts.items()
    ]


def _differences(record: Record, now: dict[str, str]) -> str:
    """Return the differences, e.g. ``torch 2.13.0 (now 2.15.0), threads 1 (now 2)``; "" if there are none.

    The commit of this code is ignored, because most commits do not change results.
    """
    environment = record.environment
    then = dict(record.versions) | {"threads": str(environment.threads)}
    then["device"] = _device_name({"device": environment.device, "device_name": environment.device_name})
    names = [name for name in now if name != "commit" and name in then and then[name] != now[name]]
    if environment.device.partition(":")[0] != "cpu" and now["device"] == then["device"]:
        names = [name for name in names if name != "threads"]  # CPU threads do not change results on a GPU
    return ", ".join(f"{name} {then[name]} (now {now[name]})" for name in names)


def _device_name(environment: dict[str, str]) -> str:
    kind = environment["device"].partition(":")[0]
    return f"{kind} {environment['device_name']}".strip()
