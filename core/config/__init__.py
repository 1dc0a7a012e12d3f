"""The configuration of a run, the command-line options made from it, and the options of execution."""
