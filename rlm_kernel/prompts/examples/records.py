"""Few-shot examples over records, values, short texts and JSON."""

from __future__ import annotations

from rlm_kernel.prompts.few_shot import Example, Step

_BERTHS = {"berth-07": {"owner": "Lund", "price": 120}, "berth-08": {"owner": "Sato", "price": 95}}
_BOATS = [
    {"boat": "Heron", "port": "Vigo", "crew": 4, "built": 1988},
    {"boat": "Gannet", "port": "Brest", "crew": 9, "built": 2003},
    {"boat": "Teal", "port": "Vigo", "crew": 6, "built": 2011},
]

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
        r"\bwhat\b|\bwhich\b|\bhow many\b[^\n]{0,80}\bha(s|ve)|\bdoes\b|\bof\b[^\n]{0,80}[\d@]",
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
