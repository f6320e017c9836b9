"""Few-shot examples over many texts: a dict of files, or of Python sources."""

from __future__ import annotations

from rlm_kernel.prompts.few_shot import Example, Step

_CAGE = '''\
import os

MAX_BARS = 40

class Cage(Box):
    """A house for one animal."""
    def lock(self):
        self.turn(2)
    def clean(self, mop=None):
        self.turn(1)
'''
_FOOD = '''\
# meals of the day
# and of the night
import time

class Meal:
    """Something to eat."""
    def cook(self, heat):
        return heat

@cache
def portion(animal, weight, day):
    grams = weight // 20
    return grams
'''
_ZOO = {"zoo/cage.py": _CAGE, "zoo/food.py": _FOOD}
_PARKS = {
    "north.txt": "The north park has an oak and a pond.\nThe pond is old.\n" * 12,
    "south.txt": "The south park has a maple and an Oak.\nDogs are welcome.\n" * 12,
}

_EACH_NODE = """\
for path, source in context.items():
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        continue
    for node in ast.walk(tree):
"""

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
        ("sources", "files", "texts"),
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
        ("sources", "files", "texts"),
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
        ("sources", "files"),
        r"\bwhich|\blongest|\bshortest|\blargest|\bbiggest|\bsmallest|\bcharacters|\bsize",
        _ZOO,
        "Which file is the shortest?",
        (
            Step(
                "# Compare the lengths of the files, show the path of the shortest and its length.\n"
                "path = min(context, key=lambda path: len(context[path]))\n"
                "path, len(context[path])",
                "('zoo/cage.py', 170)",
            ),
        ),
        "zoo/cage.py",
    ),
    Example(
        ("sources",),
        r"\bhow many|\bcount|\bnumber of|\bclass(es)?\b|\bmethods?\b|\binherit|\bsubclass|\bbase class|\bdefines?\b",
        _ZOO,
        "How many classes have a method with the name cook?",
        (
            Step(
                "# Parse each file with ast, count the classes that have a method cook.\n"
                "count = 0\n" + _EACH_NODE + "        if isinstance(node, ast.ClassDef):\n"
                "            methods = [n.name for n in node.body if isinstance(n, ast.FunctionDef)]\n"
                "            if 'cook' in methods:\n"
                "                count += 1\n"
                "count",
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
                "# Parse each file with ast, count the functions that have a decorator.\n"
                "count = 0\n"
                + _EACH_NODE
                + "        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.decorator_list:\n"
                "            count += 1\n"
                "count",
                "1",
            ),
        ),
        "1",
    ),
    Example(
        ("sources",),
        r"\bhow many|\bcount|\bnumber of|\bdocstrings?\b|\bdocumented|\bwithout\b|\bno\b|\black",
        _ZOO,
        "How many classes have a docstring with the word house?",
        (
            Step(
                "# Parse each file with ast, count the classes whose docstring has the word house.\n"
                "count = 0\n"
                + _EACH_NODE
                + "        if isinstance(node, ast.ClassDef) and 'house' in (ast.get_docstring(node) or ''):\n"
                "            count += 1\n"
                "count",
                "1",
            ),
        ),
        "1",
    ),
    Example(
        ("sources",),
        r"\bhow many classes|\binherit\w*|\bsubclass\w*|\bbase class|\bderive\w*|\bdirectly",
        _ZOO,
        "How many classes are derived from Box?",
        (
            Step(
                "# Parse each file with ast, count the classes with Box among the names of their bases.\n"
                "count = 0\n" + _EACH_NODE + "        if isinstance(node, ast.ClassDef):\n"
                "            bases = [ast.unparse(base) for base in node.bases]\n"
                "            if 'Box' in bases:\n"
                "                count += 1\n"
                "count",
                "1",
            ),
        ),
        "1",
    ),
    Example(
        ("sources",),
        r"\bhow many functions|\b(contain|have|has|use)s? an?\b|\bstatement|\bexpression|\byield\w*|\bawait|\braise",
        _ZOO,
        "How many functions contain a return statement?",
        (
            Step(
                "# Parse each file with ast, count the functions that have an ast.Return among their nodes.\n"
                "count = 0\n" + _EACH_NODE + "        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):\n"
                "            if any(isinstance(inner, ast.Return) for inner in ast.walk(node)):\n"
                "                count += 1\n"
                "count",
                "2",
            ),
        ),
        "2",
    ),
    Example(
        ("sources",),
        r"\bwhich (function|class|method)|\bfunctions?\b|\bmost|\bgreatest|\blargest|\blongest|\barguments?\b"
        r"|\bparameters?\b",
        _ZOO,
        "Which function has the most statements in its body?",
        (
            Step(
                "# Parse each file with ast, count the statements of each function, show the largest.\n"
                "found = []\n" + _EACH_NODE + "        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):\n"
                "            found.append((len(node.body), node.name, path))\n"
                "max(found)",
                "(2, 'portion', 'zoo/food.py')",
            ),
        ),
        "portion",
    ),
)
