"""What is seen of a run in a real kernel while it goes on, what stays, and how it is stopped."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from trajectory.long_run import CALLS, TURNS, started, turn

from rlm import RLM, ScriptedLM
from rlm_kernel.text import plain
from rlm_kernel.trajectory.events import RunFinished
from rlm_magics.cell_run import WatchedLogger, completion_of, run_with_view
from rlm_magics.live_view import View
from rlm_magics.page import page
from rlm_magics.progress import MAX_TURNS, Progress

WIDGET = "application/vnd.jupyter.widget-view+json"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31m\u202e"


@pytest.fixture(scope="module", autouse=True)
def _models(notebook):
    notebook.run("batch = 'x = llm_query_batched([str(n) for n in range(20)]); print(len(x))'")
    notebook.run("slow = ScriptedLM(lambda messages: 'ok', model='slow', delay=0.2)")


def test_the_view_shows_turns_code_calls_and_costs(notebook):
    notebook.run("leads = leader(cell('print(1 + 1)'), cell(batch), 'FINAL(done)', delay=0.5)")
    ran = notebook.run("%%rlm -b leads --sub-backend slow -c text\nWhat is it?")
    moments = "\n".join(ran.views)
    for said in ("1/30 · the model reads", "2/30 · cell 2 runs", "llm_query_batched([str(n)", "<progress", "/20</b>"):
        assert said in moments
    assert len(ran.views) > 5
    last = ran.views[-1] or ran.views[-2]
    assert "Answered" in moments
    assert "23 model calls (20 sub-calls)" in moments
    assert re.search(r"[\d,]+ tokens in, \d+ out · cost unknown", last)


def test_it_is_drawn_a_few_times_a_second_at_most(notebook):
    notebook.run("prints = leader(cell('for n in range(20_000): print(n)'), 'FINAL(1)')")
    ran = notebook.run("%%rlm -b prints -c text\nWhat?")
    shown = ran.of("display_data", "update_display_data")
    drawn = Counter(content["transient"]["display_id"] for content in shown)
    assert max(drawn.values()) <= 6 * ran.seconds + 4


def test_turns_that_are_not_shown_are_not_kept_but_counted():
    progress = Progress()
    for event in (started(), *(event for number in range(1, TURNS + 1) for event in turn(number))):
        progress(event)
    assert len(progress.run.turns) == MAX_TURNS
    assert progress.counts().subcalls == TURNS * CALLS
    assert progress.usage.total_calls == TURNS * CALLS + TURNS
    assert f"… {TURNS - MAX_TURNS} turns before" in str(page(progress))


def test_a_batch_says_how_long_it_will_take():
    progress = Progress()
    timed = [replace(event, time=2.0 * n) for n, event in enumerate([started(), *turn(1)])]  # an answer each 2 s
    for event in timed[:7]:
        progress(event)
    assert "2/20" in str(page(progress))
    assert "36 s left · llm_query to m" in str(page(progress))


def test_children_are_seen(notebook):
    notebook.run(
        "said = cell('import time; time.sleep(1); FINAL(1)')\n"
        "child = ScriptedLM(lambda m: said, model='child')\n"
        "leads = leader(cell('x = rlm_query(\"look\", model=\"child\")'), 'FINAL(1)')"
    )
    ran = notebook.run("%%rlm -b leads --sub-backend child --max-depth 2 -c text\nWhat?")
    assert "↳ child 1 · 1/30 · cell 1 runs" in "\n".join(ran.views)
    assert "3 model calls (1 sub-call, 1 child)" in ran.views[-1]


def test_what_a_model_or_a_kernel_wrote_is_text(notebook):
    notebook.run(f"bad = {HOSTILE!r}")
    notebook.run(
        "leads = leader(cell('print(' + repr(bad) + ')\\nraise ValueError(' + repr(bad) + ')'), 'FINAL(' + bad + ')')"
    )
    ran = notebook.run("%%rlm -b leads --verbose -c text -o out\n" + HOSTILE)
    notebook.run("shown = out._repr_mimebundle_()['text/markdown']")
    everything = "".join(ran.views) + ran.result["text/markdown"] + ran.result["text/plain"].replace(plain(HOSTILE), "")
    assert "<script" not in everything
    assert "<img" not in everything
    assert "\x1b" not in "".join(ran.views)
    assert "\u202e" not in "".join(ran.views)


def test_nothing_but_static_displays_stays(notebook):
    notebook.run("leads = leader(cell('1'), 'FINAL(1)')")
    ran = notebook.run("%%rlm -b leads -c text\nWhat?")
    assert WIDGET in {kind for content in ran.of("display_data") for kind in content["data"]}
    assert WIDGET not in {kind for data in ran.left for kind in data}
    assert not re.search("<script|<style|<link|class=|onclick|javascript:", "".join(ran.views))
    assert "<details" in ran.html
    assert any("Answered" in data["text/plain"] for data in ran.left)


def test_quiet_shows_the_answer_alone_and_verbose_unfolds_everything(notebook):
    notebook.run("leads = leader(cell('1'), 'FINAL(1)')")
    ran = notebook.run("%%rlm -b leads -c text --quiet\nWhat?")
    assert not ran.of("display_data")
    assert ran.result["text/plain"].startswith("1\n")
    ran = notebook.run("%%rlm -b leads -c text --verbose\nWhat?")
    assert ran.html.count("<details") == ran.html.count("<details open") == 2


def test_an_update_draws_only_what_changed(notebook):
    notebook.run(
        "leads = leader(cell('x = 1'), cell('import time; time.sleep(2)'), cell('y = 2'), 'FINAL(1)', delay=0.3)"
    )
    ran = notebook.run("%%rlm -b leads -c text\nWhat is it?")
    drawn = [
        (c["transient"]["display_id"], c["data"]["text/html"])
        for c in ran.of("display_data", "update_display_data")
        if c["data"].get("text/html")
    ]
    first = [(at, html) for at, (_, html) in enumerate(drawn) if "x = 1" in html and "<details" in html]
    question = [html for _, html in drawn if "What is it?" in html]
    assert len(question) == 1
    assert len(first) <= 4
    assert "<details open" not in first[-1][1]
    assert first[-1][0] < next(at for at, (_, html) in enumerate(drawn) if "y = 2" in html)
    assert len(ran.views) > 10
    assert all(one != other for one, other in pairwise(drawn))


def test_the_words_of_the_model_and_pictures_are_in_the_view_in_the_trace_and_in_the_last_run(notebook):
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    shows = f"display({{'image/png': {png!r}, 'text/plain': '<Fig' + 'ure>'}}, raw=True)"
    table = "display({'text/html': '<table><tr><td>7</td></tr></table><script>1</script>'}, raw=True)"
    notebook.run(f"plots = leader(cell({shows!r} + chr(10) + {table!r}), 'FINAL(It costs $5 to $10.)')")
    ran = notebook.run("%%rlm -b plots -c text\nIs it **5**?")
    trace, last = notebook.run("%rlm trace"), notebook.run("%rlm last")
    assert last.result["text/plain"] == ran.result["text/plain"]
    for shown in (ran.html, trace.html, last.html):
        for said in (png, "Some thoughts.", "<td>7</td>", "Is it <strong>5</strong>?"):
            assert said in shown
        for left_out in ("<script", ">&lt;Figure", "$5 to $10"):
            assert left_out not in shown


def test_a_view_of_a_run_in_progress_says_where_the_run_is_seen_after_a_reload(notebook):
    notebook.run("slow_leads = leader(cell('1'), 'FINAL(1)', delay=0.5)")
    ran = notebook.run("%%rlm -b slow_leads -c text\nWhat?")
    moments = [html for html in ran.views if "1/30" in html]
    assert all("%rlm last" in html and "notebook of the run" in html for html in moments)
    assert "%rlm last" not in ran.html


@pytest.mark.parametrize("stuck", ["cell", "model", "sub-call"])
def test_an_interrupt_stops_within_two_seconds_and_keeps_what_there_is(notebook, stuck):
    notebook.run("hang = ScriptedLM(lambda messages: 'late', model='hang', delay=600)")
    notebook.run('draft = cell(\'answer["content"] = "a draft"\')')
    then = {"cell": "cell('import time; time.sleep(600)')", "model": "LATE", "sub-call": "cell('llm_query(\"?\")')"}
    notebook.run(f"LATE = None\nnexts = {then[stuck]}")
    notebook.run(
        "import time\n"
        "def replies(m):\n"
        "    turn = sum(one['role'] == 'assistant' for one in m)\n"
        "    return draft if not turn else nexts\n"
        "leads = ScriptedLM(replies, model='leader')\n"
        "if nexts is LATE:\n"
        "    import asyncio\n"
        "    ask = leads.complete\n"
        "    async def complete(messages, **more):\n"
        "        if len([m for m in messages if m['role'] == 'assistant']):\n"
        "            await asyncio.sleep(600)\n"
        "        return await ask(messages, **more)\n"
        "    leads.complete = complete\n"
    )
    running = {"cell": "2/30 · cell 2 runs", "model": "2/30 · the model reads", "sub-call": "/1</b>"}[stuck]
    ran = notebook.run(
        "%%rlm -b leads --sub-backend hang -c text -o out\nWhat?",
        when=lambda content: running in str(content.get("data", {}).get("text/html")),
        then=notebook.manager.interrupt_kernel,
    )
    assert ran.error.startswith("CancellationError: The run was stopped after")
    assert ran.seconds < 10  # two on a quiet machine; measured in the report of the change
    print(f"stopped in {ran.seconds:.2f} s")
    assert "Stopped" in ran.html
    assert notebook.value("out.partial, out.answer, out.usage.total_calls >= 1") == "(True, 'a draft', True)"
    kept = notebook.run("import nbformat; print(len(nbformat.read(out.notebook, 4).cells))")
    assert int(kept.printed) >= 4
    assert notebook.value("1 + 1") == "2"


def test_a_second_interrupt_while_the_run_ends_changes_nothing(notebook):
    notebook.run(
        "import asyncio, os, signal\n"
        "class Impatient(ScriptedLM):\n"
        "    async def complete(self, *arguments, **more):\n"
        "        try:\n"
        "            return await super().complete(*arguments, **more)\n"
        "        except asyncio.CancelledError:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "            await asyncio.sleep(1)\n"
        "            raise\n"
        "hangs = Impatient(['late'], model='hangs', delay=600)"
    )
    ran = notebook.run(
        "%%rlm -b hangs -c text -o stopped\nWhat?",
        when=lambda content: "the model reads" in str(content.get("data", {}).get("text/html")),
        then=notebook.manager.interrupt_kernel,
    )
    assert ran.error.startswith("CancellationError: The run was stopped after")
    assert "Stopped" in ran.html
    assert notebook.value("stopped.partial") == "True"


def test_an_error_of_the_persons_own_model_ends_the_view_and_leaves_a_result(notebook):
    notebook.run("breaks = leader(cell('1'), KeyError('choices'))")
    ran = notebook.run("%%rlm -b breaks -c text -o broken\nWhat?")
    assert "KeyError: 'choices'" in ran.error
    assert "notebook of the run" in ran.html
    assert notebook.value("type(broken.error).__name__, broken.usage.total_calls") == "('KeyError', 2)"


def test_what_a_kernel_shows_as_text_and_is_none_ends_no_run(notebook):
    shows = "for odd in (5, [1, 2]): get_ipython().display_pub.publish({'text/plain': odd})"
    notebook.run(f"odd = leader(cell({shows!r}), 'FINAL(1)')")
    ran = notebook.run("%%rlm -b odd -c text --verbose\nWhat?")
    assert ran.error is None
    assert ">5</pre>" in ran.html
    assert ">[1, 2]</pre>" in ran.html


def test_a_stop_after_the_answer_keeps_the_answer():
    class StoppedLate(View):
        def __call__(self, event):
            super().__call__(event)
            if isinstance(event, RunFinished):
                self.stop()

    rlm = RLM(ScriptedLM(["42"]), max_depth=0, logger=(logger := WatchedLogger("logs")))
    result = run_with_view(completion_of(rlm, "How many?", None, None), "How many?", StoppedLate(), logger)
    assert (result.response, result.error) == ("42", None)


def test_in_a_terminal_it_is_drawn_as_text(tmp_path, monkeypatch):
    import subprocess
    import sys

    code = (
        "from rlm import ScriptedLM\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_line_magic('load_ext', 'rlm_magics')\n"
        "shell.user_ns['leads'] = ScriptedLM(['```repl\\nprint(6 * 7)\\n```', 'FINAL(42)'])\n"
        "print(shell.run_cell_magic('rlm', '-b leads', 'How many?'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=100, check=True
    )
    assert done.stdout.strip() == "42"
    assert "print(6 * 7)" in done.stderr
