"""Few-shot examples over one long text: a table, a log, or prose."""

from __future__ import annotations

from rlm_kernel.prompts.few_shot import Example, Step

_SALES = "day,shop,item,pieces,weight\nMon,north,tea,4,0.5\nMon,south,milk,11,1.5\nTue,north,tea,7,2.0\n"
_GATES = (
    "06:01:10 gate-3 OPEN badge=17 wait=14\n"
    "06:01:12 gate-1 SHUT badge=22 wait=8\n"
    "06:02:40 gate-3 OPEN badge=17 wait=31\n"
)
_BOOK = "Chapter 1\nThe ferry left at noon.\nThe captain of the ferry was Ines Duarte.\nChapter 2\nNobody spoke.\n"
_LAMPS = "Price list of the spring.\n\nLamp X-16 (2030-02-11): 30 crowns\nLamp X-17 (2030-04-02): 45 crowns\n"

TEXT = (
    Example(
        ("table",),
        r"\bhow many|\btotal|\bsum\b|\badd\b|\bamount|\bquantit\w+|\baverage|\bin all|\bcount",
        _SALES,
        "How many pieces of tea were sold in the north shop?",
        (
            Step(
                "# Add up pieces over the rows where item is tea and shop is north.\n"
                "rows = list(csv.DictReader(io.StringIO(context), delimiter=','))\n"
                "sum(int(row['pieces']) for row in rows if row['item'] == 'tea' and row['shop'] == 'north')",
                "11",
            ),
        ),
        "11",
    ),
    Example(
        ("table",),
        r"\bwhich|\bwho\b|\bmost|\bhighest|\blargest|\bgreatest|\blowest|\bleast|\btimes\b|\beach|\bper\b|\bby\b",
        _SALES,
        "Which day had the largest sum of pieces times weight?",
        (
            Step(
                "# Add up pieces times weight for each day, show the largest sum.\n"
                "rows = list(csv.DictReader(io.StringIO(context), delimiter=','))\n"
                "sums = collections.Counter()\n"
                "for row in rows:\n"
                "    sums[row['day']] += int(row['pieces']) * float(row['weight'])\n"
                "sums.most_common(1)",
                "[('Mon', 18.5)]",
            ),
        ),
        "Mon",
    ),
    Example(
        ("table",),
        r"\bhow many (rows|orders|lines|days|entries)|\bbelow|\babove|\bmore than|\bless than|\bover\b|\bunder\b",
        _SALES,
        "How many rows have a weight above 1?",
        (
            Step(
                "# Count the rows whose weight is above 1.\n"
                "rows = list(csv.DictReader(io.StringIO(context), delimiter=','))\n"
                "sum(float(row['weight']) > 1 for row in rows)",
                "2",
            ),
        ),
        "2",
    ),
    Example(
        ("table",),
        r"\bhow many (different|distinct|unique)|\bdifferent|\bdistinct|\bunique",
        _SALES,
        "How many different items are there?",
        (
            Step(
                "# Collect the items of all rows in a set, count them.\n"
                "rows = list(csv.DictReader(io.StringIO(context), delimiter=','))\n"
                "len({row['item'] for row in rows})",
                "2",
            ),
        ),
        "2",
    ),
    Example(
        ("table",),
        r"\bwhich|\bwhere|\bat which|\bhighest|\blowest|\bsingle|\bmaximum|\bminimum|\blargest|\bwho\b",
        _SALES,
        "In which shop was the row with the highest weight?",
        (
            Step(
                "# Show the row with the highest weight.\n"
                "rows = list(csv.DictReader(io.StringIO(context), delimiter=','))\n"
                "max(rows, key=lambda row: float(row['weight']))",
                "{'day': 'Tue', 'shop': 'north', 'item': 'tea', 'pieces': '7', 'weight': '2.0'}",
            ),
        ),
        "north",
    ),
    Example(
        ("log",),
        r"\bhow many (different|distinct|unique)|\bdifferent|\bdistinct|\bunique",
        _GATES,
        "How many different badges are there?",
        (
            Step(
                "# Collect the text after badge= of all lines in a set, count them.\n"
                "len({re.search(r'badge=(\\d+)', line)[1] for line in context.splitlines()})",
                "2",
            ),
        ),
        "2",
    ),
    Example(
        ("log",),
        r"\bwhich|\bwho\b|\bmost|\bmost often|\bfewest",
        _GATES,
        "Which gate is named most often?",
        (
            Step(
                "# Count the gates over all lines, show the largest count.\n"
                "counts = collections.Counter()\n"
                "for line in context.splitlines():\n"
                "    gate = re.search(r'gate-\\d+', line)[0]\n"
                "    counts[gate] += 1\n"
                "counts.most_common(1)",
                "[('gate-3', 2)]",
            ),
        ),
        "gate-3",
    ),
    Example(
        ("log",),
        r"\b(?-i:[A-Z]{3,})\b|=|\b(from|of|by|with) \w*\d|\bwhich|\bwho\b|\bmost|\bfewest|\bhighest|\blargest|\beach",
        _GATES,
        "Which gate was opened most often by badge 17?",
        (
            Step(
                "# Count the gates over the lines with OPEN and badge=17, show the largest count.\n"
                "counts = collections.Counter()\n"
                "for line in context.splitlines():\n"
                "    if ' OPEN ' in line and 'badge=17 ' in line:\n"
                "        gate = re.search(r'gate-\\d+', line)[0]\n"
                "        counts[gate] += 1\n"
                "counts.most_common(1)",
                "[('gate-3', 2)]",
            ),
        ),
        "gate-3",
    ),
    Example(
        ("log",),
        r"\bsum\b|\btotal|\badd\b|\baverage|\bmean\b|\baltogether|\bvalues?\b|\bms\b|\bbytes|\bof the [^\n]{,80} lines",
        _GATES,
        "What is the sum of the wait values of the OPEN lines?",
        (
            Step(
                "# Add up the number after wait= over the lines with OPEN.\n"
                "sum(int(re.search(r'wait=(\\d+)', line)[1]) for line in context.splitlines() if ' OPEN ' in line)",
                "45",
            ),
        ),
        "45",
    ),
    Example(
        ("log",),
        r"\bhow many|\bcount|\bnumber of|\blonger|\bmore than|\bless than|\babove|\bover\b|\bbelow|\bunder|\bat least",
        _GATES,
        "How many of the lines of badge 17 have a wait of more than 20?",
        (
            Step(
                "# Count the lines with badge=17 where the number after wait= is more than 20.\n"
                "count = 0\n"
                "for line in context.splitlines():\n"
                "    wait = int(re.search(r'wait=(\\d+)', line)[1])\n"
                "    if 'badge=17 ' in line and wait > 20:\n"
                "        count += 1\n"
                "count",
                "1",
            ),
        ),
        "1",
    ),
    Example(
        ("prose", "log"),
        r"\bhow many|\bhow often|\bcount|\bstart(s|ing)?\b|\bbegin\w*|\blines?\b|\boccur\w*|\bappear\w*",
        _BOOK,
        "How many lines start with the word Chapter?",
        (
            Step(
                "# Count the lines that start with Chapter.\n"
                "sum(line.startswith('Chapter ') for line in context.splitlines())",
                "2",
            ),
        ),
        "2",
    ),
    Example(
        ("prose", "log"),
        r"\bwhen\b|\bdate|\bday\b|\bcosts?\b|\bprice of|\bversion|\b\w+[-.]\d[\w.-]*",
        _LAMPS,
        "On which day was the price of the lamp X-17 set?",
        (
            Step(
                "# Show every line with X-17, the rarest word of the question.\n"
                "for line in context.splitlines():\n"
                "    if re.search(r'X-17', line, re.I):\n"
                "        print(line)",
                "Lamp X-17 (2030-04-02): 45 crowns",
            ),
        ),
        "2030-04-02",
    ),
    Example(
        ("prose", "log"),
        r"\bwho\b|\bwhat (is|was)|\bwhen|\bwhere|\bdate|\bname of|\bcode\b|\bwhich\b",
        _BOOK,
        "Who was the captain of the ferry?",
        (
            Step(
                "# Show every line with captain, the rarest word of the question.\n"
                "for line in context.splitlines():\n"
                "    if re.search(r'captain', line, re.I):\n"
                "        print(line)",
                "The captain of the ferry was Ines Duarte.",
            ),
        ),
        "Ines Duarte",
    ),
)
