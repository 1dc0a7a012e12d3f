"""What a search goes through, and what it has found."""
