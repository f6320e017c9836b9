"""Import paths of the reference: prompts, parsing, tokens, exceptions."""
