"""What a stranger may have written: JSON, text files, text for a terminal."""
