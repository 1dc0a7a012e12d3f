"""Measure speed and memory: ``python -m tests.benchmarks [NAME ...]``; without a name, every ``bench_NAME.py``.

Each line is a ratio, its target and a description. ``results/benchmarks/NAME.csv`` has the seconds too. Nothing else
should run on the machine meanwhile.
"""

import importlib
import sys
from pathlib import Path

import pandas as pd

from commands.cli.process_setup import set_up_libraries

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent.parent / "results" / "benchmarks"
NAMES = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def main(names: list[str]) -> int:
    """Run benchmarks and write their CSV files; return 1 if a target is missed and 2 for an unknown name."""
    set_up_libraries()
    if unknown := [name for name in names if name not in NAMES]:
        print(f"unknown benchmark {', '.join(unknown)}: choose from {', '.join(NAMES)}", file=sys.stderr)
        return 2
    missed = 0
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in names or NAMES:
        print(f"{name}: ratio, target, description", flush=True)
        rows = []
        for row in importlib.import_module(f"tests.benchmarks.bench_{name}").measure():
            at_most = row.get("at_most") is True
            met = row["ratio"] <= row["target"] if at_most else row["ratio"] >= row["target"]
            sign, verdict = "<=" if at_most else ">=", "" if met else "  MISSED"
            print(f"  {row['ratio']:8.3f}  {sign} {row['target']:<5g}  {row['what']}{verdict}", flush=True)
            rows.append(row | {"met": met})
            missed += not met
            pd.DataFrame(rows).to_csv(RESULTS / f"{name}.csv", index=False)  # after each row: some take minutes
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
