"""The command ``data``: contents and problems of a data set."""
