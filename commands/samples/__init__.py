"""The command ``samples``: inputs of every class as images and sound."""
