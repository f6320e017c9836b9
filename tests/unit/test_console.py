import asyncio
import io
import re
import threading

import pytest
from rich.console import Console
from rich.live import Live

from rlm_kernel.errors import LMError
from rlm_kernel.text import format_duration
from rlm_kernel.trajectory import events
from rlm_kernel.trajectory.console.live_display import ConsoleView
from rlm_kernel.trajectory.console.render import clip_lines
from rlm_kernel.trajectory.console.screen import Screen
from rlm_kernel.types import CellError, CellResult, ModelUsageSummary, Reply, RLMChatCompletion, Usage, UsageSummary

HOSTILE = "[red]not markup[/red] [/] :smile:\n\x1b[2J"
HOSTILE += "\x1b]0;owned\x07[red]not markup[/red] [/] :smile: \u202egnp.exe \ud800 \x00 \x9b5m end\rnew"
REPLY = "First words.\n\n```repl\nx = 1\n```\n\nMiddle words.\n\n```python\ny = 2\n```\n\nLast words."


def screen(*, terminal=True, width=100):
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=width,
        height=30,
        color_system="standard" if terminal else None,
    )
    return Screen(console, live=terminal)


def drawn(on):
    return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", on.console.file.getvalue())


def started(**changes):
    fields = {
        "time": 0.0,
        "model": "gpt-5-mini",
        "sub_model": "gpt-5-mini",
        "environment": "local",
        "question": "How many?",
        "context_type": "dict",
        "context_length": 1234,
        "max_iterations": 5,
    }
    return events.RunStarted(**(fields | changes))


def replied(text, iteration=1, finish_reason="stop"):
    reply = Reply(text, "gpt-5-mini", Usage(1200, 34), finish_reason)
    return events.ModelReplied(time=1.0, iteration=iteration, reply=reply, seconds=1.5)


def cell(code, number=1, status="ok", **fields):
    return [
        events.CellStarted(time=2.0, iteration=1, cell=number, code=code),
        events.CellFinished(time=3.0, iteration=1, cell=number, result=CellResult(code, status, **fields)),
    ]


def printed(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def answered(index, error=None, prompt="Is it so?", text="yes"):
    return events.SubcallAnswered(
        time=2.5,
        cell=1,
        query="q",
        index=index,
        model="gpt-5-nano",
        prompt=prompt,
        text="" if error else text,
        error=error,
        usage=Usage(10, 2),
        seconds=0.1,
    )


def asked(count):
    return events.SubcallStarted(
        time=2.1, cell=1, query="q", kind="llm_query", model="gpt-5-nano", prompts=("p",) * count
    )


def finished(answer="forty-two"):
    spent = UsageSummary({"gpt-5-mini": ModelUsageSummary(3, 1200, 34, 0.0123), "local": ModelUsageSummary(1, 5, 6)})
    return events.RunFinished(
        time=9.0, completion=RLMChatCompletion("gpt-5-mini", "p", answer, spent, execution_time=9.0)
    )


def play(on, *stream):
    with ConsoleView(on) as view:
        for event in stream:
            view(event)
    return drawn(on)


def test_a_run_shows_question_facts_words_code_output_answer_and_usage():
    shown = play(
        screen(terminal=False),
        started(),
        events.KernelReady(time=0.3, seconds=0.3),
        events.IterationStarted(time=0.3, iteration=1),
        replied("I look.\n```repl\nlen(context)\n```"),
        *cell(
            "len(context)",
            outputs=({"output_type": "execute_result", "data": {"text/plain": "1234"}, "metadata": {}},),
        ),
        finished(),
    )
    for text in (
        "How many?",
        "gpt-5-mini · local kernel · dict of 1,234 items",
        "The kernel is ready, 0.3 s.",
        "1,200 tokens in, 34 out · 1.5 s",
        "I look.",
        "[1] │ len(context)",
        "→ 1234",
        "forty-two",
        "1 iteration · 9.0 s",
        "$0.0123",
        "unknown",
    ):
        assert text in shown


def test_words_and_cells_appear_in_the_order_of_the_reply():
    shown = play(screen(terminal=False), started(), replied(REPLY), *cell("x = 1"), *cell("y = 2", 2), finished())
    places = [shown.index(text) for text in ("First", "[1] │ x = 1", "Middle", "[2] │ y = 2", "Last")]
    assert places == sorted(places)


def test_code_that_did_not_run_has_no_number():
    shown = play(screen(terminal=False), started(), replied(REPLY), *cell("x = 1", status="error"), finished())
    assert "    │ y = 2" in shown
    assert "[2]" not in shown


def test_a_cell_that_no_fence_announced_is_shown_too():
    shown = play(screen(terminal=False), started(), replied("words"), *cell("hidden()"), finished())
    assert "[1] │ hidden()" in shown


@pytest.mark.parametrize("text", [5, [1, 2], {"a": 1}])
def test_a_display_whose_text_is_none_is_shown_as_it_is(text):
    display = {"output_type": "display_data", "data": {"text/plain": text}, "metadata": {}}
    assert f"→ {text}" in play(screen(terminal=False), *cell("show()", outputs=(display,)))


def test_long_output_is_clipped_in_the_middle():
    text = "".join(f"line {number}\n" for number in range(1000))
    shown = play(screen(terminal=False), started(), *cell("f()", outputs=(printed(text),)))
    assert "line 0" in shown
    assert "line 999" in shown
    assert "980 more lines" in shown
    assert "line 500" not in shown


def test_a_line_of_ten_million_characters_is_cheap_and_short():
    assert len(clip_lines("x" * 10_000_000, 12, 8)) < 3_000


def test_a_traceback_keeps_its_end():
    lines = ["Traceback", *(f"frame {n}" for n in range(100)), "\x1b[31mKeyError\x1b[0m: 'k'"]
    raised = {"output_type": "error", "ename": "KeyError", "evalue": "'k'", "traceback": lines}
    error = CellError("KeyError", "'k'", "\n".join(lines))
    shown = play(screen(terminal=False), started(), *cell("f()", 1, "error", outputs=(raised,), error=error))
    assert "✗ Traceback" in shown
    assert "KeyError: 'k'" in shown
    assert "frame 50" not in shown


@pytest.mark.parametrize(
    ("status", "text"), [("died", "The kernel died"), ("timeout", "stopped after 0.0 s"), ("ok", "no output")]
)
def test_how_a_cell_ended_is_said(status, text):
    assert text in play(screen(terminal=False), started(), *cell("f()", status=status))


def test_an_image_is_named():
    image = {"output_type": "display_data", "data": {"image/png": "aGk="}, "metadata": {}}
    assert "[image/png]" in play(screen(terminal=False), *cell("plot()", outputs=(image,)))


def test_subcalls_are_summed_and_failed_ones_shown_first():
    shown = play(
        screen(terminal=False),
        started(),
        events.CellStarted(time=2.0, iteration=1, cell=1, code="ask()"),
        asked(40),
        *(answered(index, prompt=f"Is this a good name for a thing? {index}") for index in range(39)),
        answered(39, error="rate limit"),
        cell("ask()")[1],
    )
    assert "40 llm_query to gpt-5-nano · 1 failed · 400 tokens in, 80 out" in shown
    samples = [line for line in shown.splitlines() if "⇒" in line]
    assert len(samples) == 3
    assert "rate limit" in samples[0]


def test_a_batch_shows_its_progress_while_it_runs():
    on = screen()
    with ConsoleView(on) as view:
        view(started())
        view(events.CellStarted(time=2.0, iteration=1, cell=1, code="ask()"))
        view(asked(40))
        for index in range(13):
            view(answered(index, error="no" if index == 3 else None))
        on.console.print(view._status)
    assert re.search(r"13/40 +[\d.]+ s left", drawn(on))
    assert "1 failed" in drawn(on)


def test_the_newest_words_are_in_view_while_the_model_writes():
    on = screen()
    with ConsoleView(on) as view:
        view(started())
        view(events.IterationStarted(time=0.1, iteration=2))
        for number in range(5_000):
            view(events.ModelText(time=0.2, iteration=2, text=f"word{number} \n"))
        on.console.print(view._status)
    last = drawn(on)
    assert "word4999" in last
    assert "2/5 · the model writes" in last
    assert len(view._progress.tail) <= 4_000


def test_the_turn_after_the_limit_is_called_the_last_word():
    on = screen()
    with ConsoleView(on) as view:
        view(started(max_iterations=1))
        view(events.IterationStarted(time=0.1, iteration=2))
        on.console.print(view._status)
    assert "last word" in drawn(on)


def test_a_reply_cut_by_its_length_limit_is_marked():
    assert "cut by the length limit" in play(screen(terminal=False), replied("x", finish_reason="length"))


def test_a_failure_names_the_error_and_what_was_spent():
    error = LMError("secret detail", backend="openai", model="m")
    shown = play(screen(terminal=False), started(), replied("x"), events.RunFailed(time=2.0, error=error))
    assert "Failed (LMError) after 2.0 s" in shown
    assert "1,200" in shown
    assert "secret detail" not in shown


def test_what_was_spent_counts_summaries_and_no_call_that_failed():
    summary = events.Compacted(time=1.5, iteration=1, reply=replied("x").reply)
    free = events.SubcallAnswered(
        time=1.6, cell=1, query="q1", index=0, model="free", prompt="p", text="", error="no", usage=Usage(), seconds=0.1
    )
    failed = events.RunFailed(time=2.0, error=LMError("gone", backend="openai", model="m"))
    shown = play(screen(terminal=False), started(), replied("x"), summary, free, failed)
    assert "2,400" in shown
    assert "free" not in shown


def test_a_cancelled_run_was_stopped():
    shown = play(screen(), started(), events.RunFailed(time=2.0, error=asyncio.CancelledError()))
    assert "Stopped after 2.0 s" in shown


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [200, 80, 20, 7, 1])
def test_hostile_text_is_shown_as_text_at_any_width(terminal, width):
    on = screen(terminal=terminal, width=width)
    raised = {"output_type": "error", "ename": HOSTILE, "evalue": HOSTILE, "traceback": [HOSTILE]}
    display = {"output_type": "display_data", "data": {"text/plain": HOSTILE}, "metadata": {}}
    play(
        on,
        started(question=HOSTILE, model=HOSTILE, sub_model=HOSTILE + "2"),
        events.IterationStarted(time=0.1, iteration=1),
        events.ModelText(time=0.2, iteration=1, text=HOSTILE),
        replied(f"{HOSTILE}\n```repl\n{HOSTILE}\n```\n{HOSTILE}"),
        events.CellStarted(time=2.0, iteration=1, cell=1, code=HOSTILE),
        events.CellOutput(cell=1, time=2.0, output=printed(HOSTILE)),
        asked(1),
        answered(0, prompt=HOSTILE, text=HOSTILE),
        cell(HOSTILE, outputs=(printed(HOSTILE), printed(HOSTILE, "stderr"), display, raised))[1],
        events.Notice(time=3.0, message=HOSTILE),
        finished(HOSTILE),
    )
    written = on.console.file.getvalue()
    written.encode()
    assert not re.search(r"[\x00\x07\x80-\x9f\u202a-\u202e]|\x1b\]|\x1b\[2J", written)
    if width == 200:
        assert drawn(on).count("[red]not markup[/red] [/] :smile:") >= 8


@pytest.mark.parametrize("terminal", [True, False])
def test_thousands_of_events_pass(terminal):
    on = screen(terminal=terminal)
    flood = [events.CellOutput(cell=1, time=2.0, output=printed("x" * 100)) for _ in range(20_000)]
    flood += [asked(1), answered(0)] * 5_000
    begin, end = cell("f()")
    shown = play(on, started(), begin, *flood, end, finished())
    assert "5,000 llm_query" in shown


def test_without_a_terminal_there_are_no_control_sequences():
    on = screen(terminal=False)
    play(on, started(), replied(REPLY), *cell("x = 1"), finished())
    assert "\x1b" not in on.console.file.getvalue()


def test_a_second_view_on_the_same_terminal_prints_plain_blocks():
    on = screen()
    with ConsoleView(on) as first, ConsoleView(on) as second:
        first(started())
        second(started(question="Another?"))
        second(replied("x"))
        first(finished("one"))
        second(finished("two"))
    assert "run 2 · 1" in drawn(on)
    assert "one" in drawn(on)
    assert "two" in drawn(on)
    assert on.views == 0


def test_the_moving_part_is_free_again_after_a_run():
    on = screen()
    play(on, started(), finished())
    assert on.claim()
    on.release()


def test_a_live_display_of_the_caller_does_not_stop_the_view():
    on = screen()
    with Live("mine", console=on.console, auto_refresh=False):
        assert "forty-two" in play(on, started(), finished())


def test_views_in_many_threads_keep_their_blocks_whole():
    on = screen()
    begin = threading.Barrier(8)

    def run(name):
        begin.wait()
        play(on, started(question=name), *(replied(f"{name} {n}") for n in range(20)), finished(name))

    threads = [threading.Thread(target=run, args=(f"thread{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        for turn in range(20):
            assert f"thread{number} {turn}\n" in drawn(on)
    assert not [thread for thread in threading.enumerate() if thread.name == "rlm-console"]


def test_a_terminal_that_goes_away_does_not_stop_the_run():
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    play(Screen(Console(file=Gone(), force_terminal=True), live=True), started(), replied("x"), finished())


def test_an_exception_inside_leaves_the_terminal_tidy():
    on = screen()
    with pytest.raises(TypeError):
        play(on, started(), events.Notice(time=0.1, message=None))
    assert "\x1b[?25h" in on.console.file.getvalue()  # the cursor is back
    assert on.views == 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s")],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert format_duration(seconds) == said


def test_a_pipe_that_wants_colours_gets_no_cursor_movements():
    on = Screen(Console(file=io.StringIO(), force_terminal=True))
    play(on, started(), replied("x"), finished())
    assert "\x1b[" in on.console.file.getvalue()
    assert "\x1b[?25l" not in on.console.file.getvalue()
