"""Models with a script, for notebooks in JupyterLab, which import this file."""

from __future__ import annotations

import re

from rlm import ScriptedLM

reports = {
    f"2026-{month:02}.txt": "Nothing of note. " * 40 + f"Sales in month {month}: {month * 37}."
    for month in range(1, 41)
}

FIRST = """I read a few of the reports first, to see what they look like.
```repl
print(len(context), "reports")
print(context["2026-03.txt"][-60:])
```"""
SECOND = r"""Each ends with its sales. I ask for the numbers, all at once.
```repl
said = llm_query_batched([f"Which number? Only the number.\n\n{text}" for text in context.values()])
sales = {name: int(word) for name, word in zip(context, said)}
answer["content"] = f"So far the best is {max(sales, key=sales.get)}."
max(sales.items(), key=lambda item: item[1])
```"""
ENDLESS = """I check that once more.
```repl
import time
time.sleep(60)
```"""
FIGURE = """I draw the sales.
```repl
import matplotlib.pyplot as plt
plt.plot(list(sales.values()), marker="o")
plt.show()
```"""
CHECK = """I look at them once more, which takes a while.
```repl
import time
for n in range(10):
    time.sleep(1)
    print("looked", n)
```"""
LAST = """FINAL(**2026-40.txt** has the best sales: 1,480.

| report | sales |
|---|--:|
| 2026-40.txt | 1,480 |
| 2026-39.txt | 1,443 |

<b>No HTML</b> of a model is rendered, and $5 is money.)"""


def leader(*replies):
    return ScriptedLM(
        lambda messages: replies[sum(m["role"] == "assistant" for m in messages)], model="leader", delay=1
    )


quick, endless = leader(FIRST, SECOND, LAST), leader(FIRST, SECOND, ENDLESS, LAST)
slow = leader(FIRST, SECOND, FIGURE, CHECK, LAST)
reader = ScriptedLM(lambda messages: re.findall(r"\d+", messages[-1]["content"])[-1], model="reader", delay=0.5)
