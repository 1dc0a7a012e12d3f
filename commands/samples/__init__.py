"""The `samples` command: inputs of every class as pictures and sound."""
