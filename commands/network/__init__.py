"""The command ``network``: the layers of a backbone."""
