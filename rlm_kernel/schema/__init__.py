"""Structured output: answers that fit a JSON Schema."""
