"""Search of options: search spaces, random and Optuna sampling, results and figures."""
