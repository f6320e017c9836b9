"""The notebook of a run: built from the record, saved during the run, replayed by stock clients."""
