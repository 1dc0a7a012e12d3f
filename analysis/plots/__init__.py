"""Figures made from finished runs."""
