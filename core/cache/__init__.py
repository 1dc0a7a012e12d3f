"""Arrays on disk, found again by a key made of everything that decides their content."""
