"""The command ``runs``."""
