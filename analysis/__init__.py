"""Analyses of finished runs: tables, figures and statistics. Analyses never train."""
