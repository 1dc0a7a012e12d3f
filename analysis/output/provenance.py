"""Where the runs of a table were made, as far as it is not here and now: versions, device and threads decide last bits.

None of it is part of a run's identity: the same question is found again after an upgrade or on another machine. But a
table that mixes such runs says so.
"""

from collections import Counter
from collections.abc import Iterable

from core.plan import Plan
from core.session import Session
from core.store.record import Record
from core.training.results import collect_provenance


def provenance_notes(plan: Plan, session: Session) -> list[str]:
    """Say of each other machine or set of versions how many finished runs were made there, and what differs.

    Returns
    -------
    lines
        Empty where every finished run was made as this session would make it.
    """
    here = collect_provenance(session)
    now = {**here["versions"], "device": _device_name(here["environment"]), "threads": str(session.threads)}
    made = Counter(
        differences for record in _finished_records(plan, session) if (differences := _differences(record, now))
    )
    total = sum(1 for _ in _finished_records(plan, session))
    return [
        f"{count} of {total} runs were made elsewhere or earlier: {text}. Their last digits may differ."
        for text, count in made.items()
    ]


def _finished_records(plan: Plan, session: Session) -> Iterable[Record]:
    return (record for run in plan.runs if (record := session.store.record(run)) and record.finished)


def _differences(record: Record, now: dict[str, str]) -> str:
    """Name what differs, e.g. ``torch 2.13.0 (now 2.15.0), 1 thread (now 2)``; "" where nothing does.

    The commit of this code is left out: it changes with every word of a comment.
    """
    environment = record.environment
    then = dict(record.versions) | {"threads": str(environment.threads)}
    then["device"] = _device_name({"device": environment.device, "device_name": environment.device_name})
    names = [name for name in now if name != "commit" and name in then and then[name] != now[name]]
    if environment.device.partition(":")[0] != "cpu" and now["device"] == then["device"]:
        names = [name for name in names if name != "threads"]  # they decide nothing on a GPU
    return ", ".join(f"{name} {then[name]} (now {now[name]})" for name in names)


def _device_name(environment: dict[str, str]) -> str:
    kind = environment["device"].partition(":")[0]
    return f"{kind} {environment['device_name']}".strip()
