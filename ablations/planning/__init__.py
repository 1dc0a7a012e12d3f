"""From options to results: read options, plan runs, train those that are missing, and analyse them."""

import sys
from pathlib import Path

CONSOLE_SCRIPT = "run-ablation"  # the command that the installed package adds
IS_INSTALLED_SCRIPT = Path(sys.argv[0] or ".").stem == CONSOLE_SCRIPT

# The name of the program in usage texts and before warnings and errors, and the words that start it.
PROGRAM = CONSOLE_SCRIPT if IS_INSTALLED_SCRIPT else "run_ablation.py"
PROGRAM_WORDS = (PROGRAM,) if IS_INSTALLED_SCRIPT else ("python", PROGRAM)
