"""Few-shot examples of questions that no search can answer: cut out the pieces, ask the model about each, count."""

from __future__ import annotations

from rlm_kernel.prompts.few_shot import Example, Step

_COUNT = "answers = llm_query_batched(prompts)\nsum(answer.strip().lower().startswith('yes') for answer in answers)"
_DIARY = "12 May TEMPERATURE 17\n12 May DIARY We danced all evening.\n13 May DIARY I lost my keys again.\n"
_MAIL = {
    "mail/01.txt": "The lamp arrived broken and nobody answers.",
    "mail/02.txt": "Thank you for the quick delivery.",
    "plan.txt": "Monday: call the carrier.",
}
_MEALS = {"zoo/food.py": 'class Meal:\n    """Something to eat."""\n\nclass Ticket:\n    """A paper to get in."""\n'}

LINES = (
    Example(
        ("prose", "log", "table"),
        r"\bof the lines\b|\bsentences?\b|\bremarks?\b|\bhow many lines",
        "1. A heron stood in the river.\n2. We played cards all day.\n3. The cat is asleep.\n",
        "How many of the lines are about animals?",
        (
            Step(
                "# Take all lines, ask the model about each, count the yes answers.\n"
                "pieces = context.splitlines()\n"
                "prompts = [piece + '\\n\\nIs this text about animals? Answer yes or no.' for piece in pieces]\n"
                + _COUNT,
                "2",
            ),
        ),
        "2",
        meaning=True,
    ),
    Example(
        ("prose", "log", "table"),
        r"\b(?-i:[A-Z]{3,})\b|\blines? of\b",
        _DIARY,
        "How many of the DIARY lines are cheerful in mood?",
        (
            Step(
                "# Take the DIARY lines, ask the model about each, count the yes answers.\n"
                "pieces = [line for line in context.splitlines() if 'DIARY' in line]\n"
                "prompts = [piece + '\\n\\nIs the mood of this text cheerful? Answer yes or no.' for piece in pieces]\n"
                + _COUNT,
                "1",
            ),
        ),
        "1",
        meaning=True,
    ),
    Example(
        ("prose", "json"),
        r"\bsummar\w+|\bwhat is\b|\bexplain|\btopic|\bsubject|\bthe text\b",
        "The ferry left at noon. Nobody spoke, and the captain looked at the clouds.\n",
        "What is the text about?",
        (
            Step(
                "# Let the model read the beginning of the text.\n"
                "llm_query(context[:6000] + '\\n\\nIn one sentence: what is this text about?')",
                "'A quiet trip on a ferry.'",
            ),
        ),
        "A quiet trip on a ferry.",
        meaning=True,
    ),
)

PIECES = (
    Example(
        ("files", "sources", "texts", "records"),
        r"\bfolder|\bunder\b|\bdirectory|\bin \w+/|\b\w+/",
        _MAIL,
        "How many of the texts under mail/ are complaints?",
        (
            Step(
                "# Take the texts whose key starts with mail/, ask the model about each, count the yes answers.\n"
                "pieces = [text for key, text in context.items() if key.startswith('mail/')]\n"
                "prompts = [piece + '\\n\\nIs this text a complaint? Answer yes or no.' for piece in pieces]\n"
                + _COUNT,
                "1",
            ),
        ),
        "1",
        meaning=True,
    ),
    Example(
        ("texts",),
        r"\bhow many|\bcount|\bof the\b|\bnotes?\b|\bentries",
        {"page-1": "We danced to a waltz.", "page-2": "Rain all day."},
        "How many of the pages are about music?",
        (
            Step(
                "# Take all texts, ask the model about each, count the yes answers.\n"
                "pieces = list(context.values())\n"
                "prompts = [piece + '\\n\\nIs this text about music? Answer yes or no.' for piece in pieces]\n"
                + _COUNT,
                "1",
            ),
        ),
        "1",
        meaning=True,
    ),
    Example(
        ("sources", "files"),
        r"\bpurpose|\bexplain|\bsummar\w+|\bwhat (is|does)\b|(?<![\w/])[\w/]+\.(py|txt|md)\b",
        _MEALS,
        "Explain in one sentence what zoo/food.py is for.",
        (
            Step(
                "# Let the model read the beginning of zoo/food.py.\n"
                "llm_query(context['zoo/food.py'][:6000] + '\\n\\nIn one sentence: what is this code for?')",
                "'It describes meals and tickets.'",
            ),
        ),
        "It describes meals and tickets.",
        meaning=True,
    ),
    Example(
        ("sources",),
        r"\bdocstrings?\b|\bclass(es)?\b|\bfunctions?\b|\bmodules?\b|\bwhich\b|\bhow many\b",
        _MEALS,
        "Judging by their docstrings, which classes in zoo/food.py are about food?",
        (
            Step(
                "# Take the docstring of each class in zoo/food.py, ask the model about each, show the yes names.\n"
                "classes = [n for n in ast.walk(ast.parse(context['zoo/food.py'])) if isinstance(n, ast.ClassDef)]\n"
                "pieces = {n.name: ast.get_docstring(n) or '' for n in classes}\n"
                "prompts = [text + '\\n\\nIs this text about food? Answer yes or no.' for text in pieces.values()]\n"
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
        r"\bhow many|\bcount|\bvisitors?|\bguests?|\bpeople",
        ["We enjoyed every minute.", "Too long, and the guide was late."],
        "How many of the visitors liked the tour?",
        (
            Step(
                "# Ask the model about each text, count the yes answers.\n"
                "prompts = [text + '\\n\\nDid this visitor like the tour? Answer yes or no.' for text in context]\n"
                + _COUNT,
                "1",
            ),
        ),
        "1",
        meaning=True,
    ),
    Example(
        ("texts", "values"),
        r"\bhow many|\bcount|\bitems?\b|\bof (these|the)\b",
        ["The lamp arrived broken and nobody answers.", "Thank you for the quick delivery."],
        "How many of the letters are complaints?",
        (
            Step(
                "# Ask the model about each letter, count the yes answers.\n"
                "prompts = [letter + '\\n\\nIs this text a complaint? Answer yes or no.' for letter in context]\n"
                + _COUNT,
                "1",
            ),
        ),
        "1",
        meaning=True,
    ),
)

MEANING = (*LINES, *PIECES)
