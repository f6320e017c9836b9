"""A log in the form in which the reference writes them: one logger, two completions in one file, a child in a call."""

from __future__ import annotations

import json

QUESTION = "Answer the following: {}\n\nYour context is a str of 1410 total characters."


def usage(calls=1):
    return {
        "model_usage_summaries": {"gpt-5": {"total_calls": calls, "total_input_tokens": 10, "total_output_tokens": 5}}
    }


def call(prompt, response, **more):
    told = {"root_model": "gpt-5", "prompt": prompt, "response": response}
    return {**told, "usage_summary": usage(), "execution_time": 0.2, **more}


def block(code, stdout="", stderr="", calls=()):
    result = {"stdout": stdout, "stderr": stderr, "locals": {"context": "long"}, "execution_time": 0.1}
    return {"code": code, "result": {**result, "rlm_calls": list(calls), "final_answer": None}}


def turn(number, second, question, response, blocks=(), final=None):
    prompt = [{"role": "system", "content": "You are an RLM."}, {"role": "user", "content": QUESTION.format(question)}]
    told = {"type": "iteration", "iteration": number, "timestamp": f"2026-11-20T09:00:{second:02}.5", "prompt": prompt}
    return {**told, "response": response, "code_blocks": list(blocks), "final_answer": final, "iteration_time": 0.5}


def completion(question, second):
    child = {
        "run_metadata": {"root_model": "gpt-5-mini", "max_depth": 2, "backend": "openai"},
        "iterations": [turn(1, second, "Count them", "```repl\nlen(context)\n```", [block("len(context)")], "3")],
    }
    calls = [call(f"Summarise part {n}", f"About part {n}") for n in range(5)]
    ask = [
        block("parts = llm_query_batched(prompts)\nparts[0]", "About part 0\n", calls=calls),
        block("boom", stderr="\nNameError: boom"),
    ]
    counted = [block("child = rlm_query('Count them')", calls=[call("Count them", "3", metadata=child)])]
    return [
        turn(
            1,
            second,
            question,
            "I ask.\n```repl\nparts = llm_query_batched(prompts)\nparts[0]\n```\n```repl\nboom\n```",
            ask,
        ),
        turn(2, second + 2, question, "A child.", counted),
        turn(
            3,
            second + 3,
            question,
            "```repl\nanswer['ready'] = True\n```",
            [block("answer['ready'] = True")],
            "Forty-two",
        ),
    ]


def reference_log(path):
    metadata = {
        "type": "metadata",
        "timestamp": "2026-11-20T09:00:00",
        "root_model": "gpt-5",
        "max_depth": 2,
        "max_iterations": 6,
    }
    metadata |= {
        "backend": "openai",
        "backend_kwargs": {},
        "environment_type": "local",
        "environment_kwargs": {},
        "other_backends": None,
    }
    lines = [metadata, *completion("What is the answer?", 1), *completion("And again?", 20)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path
