"""Input that is not trusted: JSON, text files, text for a terminal."""
