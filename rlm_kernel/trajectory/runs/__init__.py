"""Many runs: the summaries of a folder's logs, their index, the notes of people, filters, and the list as a table."""
