"""Options of a run that takes about a second, as they are typed."""

SIZE = ["--n-mels", "32", "--n-frames", "32", "--sr", "8000", "--duration", "0.5"]  # of the sounds of `conftest`
ON_CPU = ["--device", "cpu", "--threads", "1"]
SMALL = [*SIZE, "--epochs", "1", "--batch-size", "8", *ON_CPU]
