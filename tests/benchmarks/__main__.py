"""Measure speed against named peers, as ratios from one run: ``python -m tests.benchmarks [NAME ...]``.

A name is a file's, ``bench_NAME.py``; all are measured where none is given. Each line says the ratio, its target and
what was measured; the CSV has the seconds too. Nothing else should run on the machine meanwhile.
"""

import importlib
import sys
from pathlib import Path

import pandas as pd

from commands.cli.process_setup import set_up_libraries

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent.parent / "results" / "benchmarks"


def main(names: list[str]) -> int:
    """Measure, print and write ``results/benchmarks/<name>.csv``; return 1 where a target is missed."""
    set_up_libraries()
    known = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    if unknown := [name for name in names if name not in known]:
        print(f"unknown benchmark {', '.join(unknown)}: choose from {', '.join(known)}", file=sys.stderr)
        return 2
    missed = 0
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in names or known:
        print(f"{name}: ratio, target, what", flush=True)
        rows = []
        for row in importlib.import_module(f"tests.benchmarks.bench_{name}").measure():
            at_most = row.get("at_most") is True
            met = row["ratio"] <= row["target"] if at_most else row["ratio"] >= row["target"]
            sign, verdict = ("<=", ">=")[not at_most], "" if met else "  MISSED"
            print(f"  {row['ratio']:8.3f}  {sign} {row['target']:<5g}  {row['what']}{verdict}", flush=True)
            rows.append(row | {"met": met})
            missed += not met
            pd.DataFrame(rows).to_csv(RESULTS / f"{name}.csv", index=False)  # after each: some take minutes
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
