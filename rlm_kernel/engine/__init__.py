"""The loop of a completion: configuration, budget, the root model, sub-calls, the REPL, resuming."""
