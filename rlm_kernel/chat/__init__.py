"""A conversation in a terminal: `rlm chat`.

`Conversation` is the agent with what a person gave it; `Commands` are the lines that begin with a slash. A terminal
draws with `view` and reads with `screen`; without one, `lines` answers the lines of stdin.
"""
