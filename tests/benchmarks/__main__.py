"""Measure speed against named peers, as ratios from one run: ``python -m tests.benchmarks [NAME ...]``.

A name is a file's, ``bench_NAME.py``; all are measured where none is given. The table says what was measured, ours
and the reference in seconds, their ratio, and the target. Nothing else should run on the machine meanwhile.
"""

import importlib
import sys
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent


def main(names: list[str]) -> int:
    """Measure, print and write ``results/benchmarks/<name>.csv``; return 1 where a target is missed."""
    known = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    if unknown := [name for name in names if name not in known]:
        print(f"unknown benchmark {', '.join(unknown)}: choose from {', '.join(known)}", file=sys.stderr)
        return 2
    missed = 0
    for name in names or known:
        frame = pd.DataFrame(importlib.import_module(f"tests.benchmarks.bench_{name}").measure())
        frame["met"] = [
            row["ratio"] <= row["target"] if row.get("at_most") is True else row["ratio"] >= row["target"]
            for row in frame.to_dict("records")
        ]
        missed += int((~frame["met"]).sum())
        print(f"\n{name}\n{frame.to_string(index=False, max_colwidth=90, float_format='{:.3g}'.format)}", flush=True)
        folder = FOLDER.parent.parent / "results" / "benchmarks"
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_csv(folder / f"{name}.csv", index=False)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
