"""The command line: parser, presets, exit codes and process set-up."""

PROGRAM = "run_ablation.py"  # in usage texts, and before warnings and errors
