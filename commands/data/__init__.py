"""The `data` command: what a data set contains and which problems it has."""
