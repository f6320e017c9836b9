"""The relay: a kernel behind the standard streams of a process, wherever that runs."""
