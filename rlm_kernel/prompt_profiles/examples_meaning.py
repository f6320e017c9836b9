"""Worked examples of questions that no search can settle: cut out the pieces, ask the model about each, count."""

from __future__ import annotations

from rlm_kernel.worked_examples import Example, Step

MEANING = (
    Example(
        ("prose", "log", "table"),
        r"\blines?\b|\b[A-Z]{3,}\b",
        "12 May TEMPERATURE 17\n12 May DIARY A heron stood in the river.\n13 May DIARY We played cards all day.\n",
        "How many of the DIARY lines are about animals?",
        (
            Step(
                "# Take the DIARY lines, ask the model about each, count the answers that say yes.\n"
                "pieces = [line for line in context.splitlines() if 'DIARY' in line]\n"
                "prompts = ['Is this text about animals? Answer only yes or no.\\n\\n' + piece for piece in pieces]\n"
                "answers = llm_query_batched(prompts)\n"
                "sum(answer.strip().lower().startswith('yes') for answer in answers)",
                "1",
            ),
        ),
        "1",
        meaning=True,
    ),
    Example(
        ("files", "sources", "texts", "records"),
        r"\bfolder|\bunder\b|\bdirectory|\bfiles\b|\bkeys\b|\bnotes?\b|/",
        {
            "mail/01.txt": "The lamp arrived broken and nobody answers.",
            "mail/02.txt": "Thank you for the quick delivery.",
            "plan.txt": "Monday: call the carrier.",
        },
        "How many of the texts under mail/ are complaints?",
        (
            Step(
                "# Take the texts whose key starts with mail/, ask the model about each, count the answers that say yes.\n"
                "pieces = [text for key, text in context.items() if key.startswith('mail/')]\n"
                "prompts = ['Is this letter a complaint? Answer only yes or no.\\n\\n' + piece for piece in pieces]\n"
                "answers = llm_query_batched(prompts)\n"
                "sum(answer.strip().lower().startswith('yes') for answer in answers)",
                "1",
            ),
        ),
        "1",
        meaning=True,
    ),
    Example(
        ("sources",),
        r"\bdocstrings?\b|\bclass(es)?\b|\bfunctions?\b|\bmodules?\b|\bwhich\b",
        {
            "zoo/food.py": 'class Meal:\n    """Something to eat."""\n\nclass Ticket:\n    """A paper to get in."""\n',
        },
        "Judging by their docstrings, which classes in zoo/food.py are about food?",
        (
            Step(
                "# Take the docstring of each class in zoo/food.py, ask the model about each, show the names with yes.\n"
                "classes = [n for n in ast.walk(ast.parse(context['zoo/food.py'])) if isinstance(n, ast.ClassDef)]\n"
                "pieces = {n.name: ast.get_docstring(n) or '' for n in classes}\n"
                "prompts = ['Is this text about food? Answer only yes or no.\\n\\n' + piece for piece in pieces.values()]\n"
                "answers = llm_query_batched(prompts)\n"
                "[name for name, answer in zip(pieces, answers) if answer.strip().lower().startswith('yes')]",
                "['Meal']",
            ),
        ),
        "Meal",
        meaning=True,
    ),
    Example(
        ("texts", "values"),
        r"\bhow many|\bcount|\bitems?\b|\bof (these|the)\b",
        ["The lamp arrived broken and nobody answers.", "Thank you for the quick delivery."],
        "How many of the letters are complaints?",
        (
            Step(
                "# Ask the model about each letter, count the answers that say yes.\n"
                "pieces = list(context.values()) if isinstance(context, dict) else context\n"
                "prompts = ['Is this letter a complaint? Answer only yes or no.\\n\\n' + piece for piece in pieces]\n"
                "answers = llm_query_batched(prompts)\n"
                "sum(answer.strip().lower().startswith('yes') for answer in answers)",
                "1",
            ),
        ),
        "1",
        meaning=True,
    ),
)
