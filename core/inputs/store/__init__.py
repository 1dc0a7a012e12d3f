"""Inputs on disk: computed once per data set and input settings, and shared by all runs."""
