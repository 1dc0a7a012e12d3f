"""The command ``figures``."""
