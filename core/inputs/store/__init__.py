"""Stored inputs: computed once per data content and input settings, then read from disk."""
