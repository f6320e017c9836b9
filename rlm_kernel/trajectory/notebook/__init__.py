"""The notebook of a run: made from the record, written while the run goes on, run again by stock clients."""
