"""The configuration of a run, the options made from it, and how a command is executed."""
