"""The `network` command: the layers of a backbone."""
