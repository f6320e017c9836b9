"""Worked examples over many texts: a dict of files, or of Python sources."""

from __future__ import annotations

from rlm_kernel.worked_examples import Example, Step

_ZOO = {
    "zoo/cage.py": 'import os\n\nMAX_BARS = 40\n\nclass Cage(Box):\n    """A house for one animal."""\n    def lock(self):\n'
    "        self.turn(2)\n    def clean(self, mop=None):\n        self.turn(1)\n",
    "zoo/food.py": '# meals of the day\n# and of the night\nimport time\n\nclass Meal:\n    """Something to eat."""\n    def cook(self, heat):\n'
    "        return heat\n\n@cache\ndef portion(animal, weight, day):\n    grams = weight // 20\n    return grams\n",
}
_PARKS = {
    "north.txt": "The north park has an oak and a pond.\nThe pond is old.\n" * 12,
    "south.txt": "The south park has a maple and an Oak.\nDogs are welcome.\n" * 12,
}

FILES = (
    Example(
        ("sources",),
        r"\bwhere|\bwhich file|\bin what file|\bdefin\w+|\blocated|\bpath|\bdeclared",
        _ZOO,
        "In which file is the function portion defined?",
        (
            Step(
                "# Search the lines that define portion in all files, show the path and the line.\n"
                "for path, source in context.items():\n"
                "    for line in source.splitlines():\n"
                "        if re.search(r'^\\s*(def|class) portion\\b', line):\n"
                "            print(path, '|', line)",
                "zoo/food.py | def portion(animal, weight, day):",
            ),
        ),
        "zoo/food.py",
    ),
    Example(
        ("sources", "files"),
        r"\bvalue|\bwhat (is|number)|\bdefault|\bconstant|\bassigned|\bset to|\bequal",
        _ZOO,
        "What is the value of MAX_BARS in the class Cage?",
        (
            Step(
                "# Search the lines with MAX_BARS in all files, show the path and the line.\n"
                "for path, source in context.items():\n"
                "    for line in source.splitlines():\n"
                "        if re.search(r'\\bMAX_BARS\\b', line):\n"
                "            print(path, '|', line)",
                "zoo/cage.py | MAX_BARS = 40",
            ),
        ),
        "40",
    ),
    Example(
        ("sources", "files"),
        r"\bhow (often|many times)|\boccur\w*|\bappear\w*|\bcall(s|ed)\b|\bin total|\btogether|\bnumber of times",
        _ZOO,
        "How often is the method turn called?",
        (
            Step(
                "# Count the text turn( in all files, add the counts up.\n"
                "sum(len(re.findall(r'\\bturn\\(', source)) for source in context.values())",
                "2",
            ),
        ),
        "2",
    ),
    Example(
        ("sources", "files"),
        r"\b(how many|number of) files|\bmention\w*|\bcontain\w*|\bimport\w*|\bupper|\blower|\bword",
        _PARKS,
        "How many files mention the word oak, in upper or lower case?",
        (
            Step(
                "# Count the files whose text has the word oak in any case.\n"
                "sum(bool(re.search(r'\\boak\\b', text, re.I)) for text in context.values())",
                "2",
            ),
        ),
        "2",
    ),
    Example(
        ("sources", "files"),
        r"\bwhich (of the )?(files?|modules?|one)|\bmost|\blongest|\blargest|\bbiggest|\blines|\bshortest|\bfewest",
        _ZOO,
        "Which file has the most comment lines?",
        (
            Step(
                "# Count the comment lines of each file, show the file with the most.\n"
                "counts = collections.Counter()\n"
                "for path, source in context.items():\n"
                "    counts[path] = sum(line.strip().startswith('#') for line in source.splitlines())\n"
                "counts.most_common(1)",
                "[('zoo/food.py', 2)]",
            ),
        ),
        "zoo/food.py",
    ),
    Example(
        ("sources",),
        r"\bhow many|\bcount|\bnumber of|\bclass(es)?\b|\bmethods?\b|\binherit|\bsubclass|\bbase class|\bdefines?\b",
        _ZOO,
        "How many classes have a method with the name cook?",
        (
            Step(
                "# Parse each file with ast, collect the classes that have a method cook, count them.\n"
                "found = []\n"
                "for path, source in context.items():\n"
                "    try:\n"
                "        tree = ast.parse(source)\n"
                "    except (SyntaxError, ValueError):\n"
                "        continue\n"
                "    for node in ast.walk(tree):\n"
                "        if isinstance(node, ast.ClassDef):\n"
                "            methods = [n.name for n in node.body if isinstance(n, ast.FunctionDef)]\n"
                "            if 'cook' in methods:\n"
                "                found.append((path, node.name))\n"
                "len(found)",
                "1",
            ),
        ),
        "1",
    ),
    Example(
        ("sources",),
        r"\bhow many|\bcount|\bnumber of|\bfunctions?\b|\bdecorat\w+|\basync|\bdocstrings?\b|\breturn|\bgenerators?\b",
        _ZOO,
        "How many functions have a decorator?",
        (
            Step(
                "# Parse each file with ast, collect the functions that have a decorator, count them.\n"
                "found = []\n"
                "for path, source in context.items():\n"
                "    try:\n"
                "        tree = ast.parse(source)\n"
                "    except (SyntaxError, ValueError):\n"
                "        continue\n"
                "    for node in ast.walk(tree):\n"
                "        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.decorator_list:\n"
                "            found.append((path, node.name))\n"
                "len(found)",
                "1",
            ),
        ),
        "1",
    ),
    Example(
        ("sources",),
        r"\bwhich (function|class|method)|\bfunctions?\b|\bmost|\bgreatest|\blargest|\blongest|\barguments?\b|\bparameters?\b",
        _ZOO,
        "Which function has the most statements in its body?",
        (
            Step(
                "# Parse each file with ast, count the statements of each function, show the largest.\n"
                "counts = collections.Counter()\n"
                "for path, source in context.items():\n"
                "    try:\n"
                "        tree = ast.parse(source)\n"
                "    except (SyntaxError, ValueError):\n"
                "        continue\n"
                "    for node in ast.walk(tree):\n"
                "        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):\n"
                "            counts[node.name, path] = len(node.body)\n"
                "counts.most_common(1)",
                "[(('portion', 'zoo/food.py'), 2)]",
            ),
        ),
        "portion",
    ),
)
