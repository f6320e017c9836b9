"""Worked examples over one long text (a table, a log, prose, JSON) and over records."""

from __future__ import annotations

from rlm_kernel.worked_examples import Example, Step

_SALES = "day,shop,item,pieces,weight\nMon,north,tea,4,0.5\nMon,south,milk,11,1.5\nTue,north,tea,7,2.0\n"
_GATES = (
    "06:01:10 gate-3 OPEN badge=17 wait=14\n"
    "06:01:12 gate-1 SHUT badge=22 wait=8\n"
    "06:02:40 gate-3 OPEN badge=17 wait=31\n"
)
_BOOK = "Chapter 1\nThe ferry left at noon.\nThe captain of the ferry was Ines Duarte.\nChapter 2\nNobody spoke.\n"
_LAMPS = "Price list of the spring.\n\nLamp X-16 (2030-02-11): 30 crowns\nLamp X-17 (2030-04-02): 45 crowns\n"
_BERTHS = {"berth-07": {"owner": "Lund", "price": 120}, "berth-08": {"owner": "Sato", "price": 95}}
_BOATS = [
    {"boat": "Heron", "port": "Vigo", "crew": 4, "built": 1988},
    {"boat": "Gannet", "port": "Brest", "crew": 9, "built": 2003},
    {"boat": "Teal", "port": "Vigo", "crew": 6, "built": 2011},
]

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
        r"\bsum\b|\btotal|\badd\b|\baverage|\bmean\b|\baltogether|\bvalues?\b|\bms\b|\bbytes|\bof the .* lines",
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
        ("log", "table"),
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
        ("prose", "log", "json", "table"),
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
        ("prose", "log", "table", "texts"),
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
        ("prose", "log", "json", "table", "files", "texts"),
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

RECORDS = (
    Example(
        ("records",),
        r"\bwhich|\bwho\b|\bmost|\bhighest|\blargest|\boldest|\bnewest|\blowest|\bbest|\bsmallest",
        _BOATS,
        "Which boat in Vigo has the largest crew?",
        (
            Step(
                "# Take the records with port Vigo, show the one with the largest crew.\n"
                "rows = [row for row in context if row['port'] == 'Vigo']\n"
                "max(rows, key=lambda row: row['crew'])",
                "{'boat': 'Teal', 'port': 'Vigo', 'crew': 6, 'built': 2011}",
            ),
        ),
        "Teal",
    ),
    Example(
        ("records",),
        r"\bhow many|\bcount|\bnumber of|\bsum\b|\btotal|\baverage|\bafter|\bbefore|\bsince",
        _BOATS,
        "How many boats with a crew of more than five were built before 2010?",
        (
            Step(
                "# Count the records with crew above 5 and built before 2010.\n"
                "sum(row['crew'] > 5 and row['built'] < 2010 for row in context)",
                "1",
            ),
        ),
        "1",
    ),
    Example(
        ("records", "values"),
        r"\bwhat\b|\bwhich\b|\bhow many\b.*\bhas|\bhow many\b.*\bhave|\bdoes\b|\bof\b.*[\d@]",
        _BERTHS,
        "Who is the owner of berth-08?",
        (Step("# Look the key up.\ncontext['berth-08']", "{'owner': 'Sato', 'price': 95}"),),
        "Sato",
    ),
    Example(
        ("records",),
        r"\bwhich|\bwho\b|\bmost|\bhighest|\blargest|\blowest|\bbest|\bsmallest|\bcheapest",
        _BERTHS,
        "Which berth has the lowest price?",
        (
            Step(
                "# Compare the prices of all entries, show the key of the lowest and its record.\n"
                "key = min(context, key=lambda key: context[key]['price'])\n"
                "key, context[key]",
                "('berth-08', {'owner': 'Sato', 'price': 95})",
            ),
        ),
        "berth-08",
    ),
    Example(
        ("records",),
        r"\bhow many|\bcount|\bnumber of|\bsum\b|\btotal|\baverage|\bmore than|\bless than|\bwith\b",
        _BERTHS,
        "How many berths cost more than 100?",
        (
            Step(
                "# Count the entries whose price is more than 100.\n"
                "sum(record['price'] > 100 for record in context.values())",
                "1",
            ),
        ),
        "1",
    ),
    Example(
        ("values",),
        r"\bwhich|\bwho\b|\bmost|\bhighest|\blargest|\blowest|\bsmallest",
        {"Vigo": 120, "Brest": 95, "Cork": 210},
        "Which port has the largest number?",
        (
            Step(
                "# Compare the values, show the key of the largest and its value.\n"
                "key = max(context, key=context.get)\n"
                "key, context[key]",
                "('Cork', 210)",
            ),
        ),
        "Cork",
    ),
    Example(
        ("texts",),
        r"\bhow many|\bcount|\bcontain|\bmention|\bword",
        ["The lamp arrived broken.", "Thank you for the quick delivery.", "A new Lamp, please."],
        "How many letters mention a lamp?",
        (
            Step(
                "# Count the letters with the word lamp in any case.\n"
                "sum(bool(re.search(r'\\blamp\\b', letter, re.I)) for letter in context)",
                "2",
            ),
        ),
        "2",
    ),
    Example(
        ("json",),
        r"\bwhich|\bwho\b|\bwhat\b|\bhow many|\bmost|\bname",
        '[{"boat": "Heron", "crew": 4}, {"boat": "Gannet", "crew": 9}]',
        "How large is the crew of the Gannet?",
        (
            Step(
                "# The text is JSON: load it, show the records whose boat is Gannet.\n"
                "data = json.loads(context)\n"
                "[row for row in data if row['boat'] == 'Gannet']",
                "[{'boat': 'Gannet', 'crew': 9}]",
            ),
        ),
        "9",
    ),
)
