"""Atomic files, file signatures and thread helpers."""
