"""Numbers that reports have published, compared with ours."""
