"""From options to results: read options, plan runs, train those that are missing, and analyse them."""

PROGRAM = "run_ablation.py"  # in usage texts, in commands to be typed again, and before warnings and errors
