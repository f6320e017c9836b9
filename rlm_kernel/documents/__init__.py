"""Documents, tables, mail and archives as text, read in a child process with limits on time and memory."""
