"""JupyterLab opens the notebook of a run and runs it. RLM_SCREENSHOTS names a folder for what that looks like."""

from __future__ import annotations

import time

import pytest
from laboratory import IN_CHROMIUM, browser, lab, read, shot, wait_until
from trajectory.comparison import differences
from trajectory.stories import cell, codes, environment, told

pytestmark = [
    *IN_CHROMIUM,
]
TURNS = 30

BATCH = """\
names = [f"record {{n}} of part {turn}: " + "some words of a longer text " * 8 for n in range(20)]
kinds = llm_query_batched([f"Of which kind is this? Answer with one word.\\n\\n{{name}}" for name in names])
print(len(kinds), kinds[0][-30:])
{turn} * 2"""
FIGURE = """\
import matplotlib.pyplot as plt
plt.plot([{turn}, 2, 3], marker="o")
plt.title("Turn {turn}")
plt.show()"""


def sub(prompt):
    return f"kind {len(prompt)} <b>bold</b> & {prompt[-40:]}"


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Thirty turns with six hundred sub-calls, a child, figures, errors, and text that wants to be more than text."""
    replies = [cell(BATCH.format(turn=turn), f"I go on with part **{turn}**.") for turn in range(1, TURNS)]
    replies[2] += f"\nAnd a figure:\n```repl\n{FIGURE.format(turn=3)}\n```\n"
    replies[3] = cell(
        "rlm_query('child: look')\nprint('before')\n1 / 0", "Costs $5 and $6. <img src=x> ![a](http://x/y)"
    )
    replies[4] += f"\n```repl\nllm_query_batched(['again'] * {20 * 2})\n```"
    replies.append("FINAL(There are *two* kinds:\n1. one\n2. <b>another</b>)")
    return told(tmp_path_factory.mktemp("story"), replies, sub=sub, child=[cell("context"), "FINAL(nothing)"])


def test_it_opens_and_runs_in_jupyterlab(story):
    assert story.error is None
    before = story.notebook
    assert sum(len(call.answers) for c in story.recording.trajectory.cells for call in c.calls) >= 600
    with lab(story.log.parent, env=environment(story.log.parent.parent)) as address, browser() as chromium:
        tab = chromium.new_page(viewport={"width": 1200, "height": 1000})
        started = time.perf_counter()
        tab.goto(address.format(story.path.name))
        tab.get_by_role("heading", name="What is it?").wait_for(timeout=60_000)
        print(f"{story.path.stat().st_size:,} bytes, opened in {time.perf_counter() - started:.1f} s")
        tab.get_by_role("heading", name="Turn 1").first.wait_for()
        shot(tab, "opened")
        assert "model not found" not in tab.content()
        tab.get_by_text("| Idle").wait_for(timeout=60_000)
        assert tab.locator(".jp-mod-dirty").count() == 0
        tab.locator("summary", has_text="llm_query: 20").first.click()
        tab.locator("summary", has_text="llm_query_batched, 20 prompts").first.click()
        tab.locator("summary", has_text="record 0 of part 1").first.click()
        shot(tab, "calls")
        tab.get_by_role("menuitem", name="Run", exact=True).click()
        tab.get_by_text("Run All Cells", exact=True).click()
        tab.get_by_text("601 recorded answers").wait_for(timeout=60_000)
        tab.get_by_text("| Idle").wait_for(timeout=120_000)
        wait_until(lambda: saved_by(tab, story, before) is not None)
        shot(tab, "ran")
        assert "model not found" not in tab.content()
        after = saved_by(tab, story, before)
        assert differences(before, after) == differences(story.recording, after) == []
        assert [folded(c) for c in codes(after)] == [folded(c) for c in codes(before)]
        assert sum(map(bool, map(folded, codes(after)))) == sum(bool(c.calls) for c in story.recording.trajectory.cells)


def saved_by(tab, story, before):
    """The notebook as Lab saves it, once every cell has run."""
    tab.keyboard.press("Control+s")
    tab.wait_for_timeout(500)
    notebook = read(story.path)
    if notebook is None or not notebook.cells[2].outputs or not tab.get_by_text("| Idle").count():
        return None
    cells = zip(codes(notebook), codes(before), strict=True)
    return notebook if all(bool(now.outputs) == bool(then.outputs) for now, then in cells) else None


def folded(cell):
    """The sub-calls below a cell."""
    return [output.data for output in cell.outputs if output.get("metadata", {}).get("rlm", {}).get("role") == "calls"]
