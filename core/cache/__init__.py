"""Large arrays on disk that are computed once and shared by processes."""
