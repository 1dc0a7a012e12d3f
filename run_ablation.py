#!/usr/bin/env python
"""Ablations of transfer learning on sound: find out which part of a pretrained image CNN carries the knowledge.

    python run_ablation.py freeze --block 3                     embedded instruments, no download, about two minutes
    python run_ablation.py freeze --data urbansound8k --data-root DIR --fold all --seed 0 1 2
    python run_ablation.py study rethinking-cnn --scale quick   every experiment of a report, beside its numbers
    python run_ablation.py data --data esc50 --data-root DIR    describe a data set and check its files
    python run_ablation.py predict DIR --run ID                 predict the classes of new recordings
    python run_ablation.py report                               one page about every run in the store

An ablation plans its runs, trains those that are not in the store yet (``results/runs``), and writes tables and figures
from the store. The same command again trains nothing; an interrupted one resumes.
"""

from commands.cli.main import main, run_program

__all__ = ["main"]

if __name__ == "__main__":
    run_program()
