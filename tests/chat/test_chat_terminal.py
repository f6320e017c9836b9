"""`rlm chat` on a pseudo-terminal with a real kernel: what a person sees on the screen."""

from __future__ import annotations

import re
import signal
import stat

import pytest
from agent_parts import cell
from chat_terminal import ALT_ENTER, CTRL_C, CTRL_D, CTRL_O, ENTER, UP
from loopback import Fails, Hangs, Says


def test_an_answer_is_markdown_its_run_is_a_line_and_ctrl_o_shows_it(chats):
    notes = chats.folder / "notes"
    notes.mkdir()
    (notes / "one.md").write_text("the number is 7")
    answer = "FINAL(The number was found in a note:\n\n- in **one.md**\n\nIt is seven, not <b>8</b>.)"
    chats.provider.script = [cell("n = 7\nprint(n, llm_query('hm?'))"), "sure", Says(answer, delay=0.02)]
    with chats.terminal("notes") as terminal:
        terminal.wait_for_prompt()
        assert "1 text in the context" in terminal.text
        terminal.turn("Which number?")
        assert "• in one.md" in terminal.text
        assert "not <b>8</b>." in terminal.text
        assert re.search(r"▸ 1 cell · 1 sub-call · [\d,]+ tokens in, \d+ out", terminal.text)
        assert "print(n" not in terminal.text
        terminal.type(CTRL_O)
        terminal.wait_for("▾")
        assert "[2] │ n = 7" in terminal.text
        assert "→ 7 sure" in terminal.text
        terminal.wait_for_prompt()
        terminal.type(CTRL_D)
        assert terminal.wait_for_end() == 0
        assert "rlm chat --resume" in terminal.text
    assert "one.md" in chats.provider.requests[0].said


@pytest.mark.full
def test_ctrl_o_unfolds_the_run_while_it_goes_on(chats):
    chats.provider.script = [
        cell("print('seen ' + 'early')\nllm_query('wait')"),
        Hangs(then="go"),
        "FINAL(that is all)",
    ]
    with chats.terminal() as terminal:
        terminal.wait_for_prompt()
        terminal.type(f"go{ENTER}")
        terminal.wait_for("0/1 llm_query")
        assert "│ print" not in terminal.text
        terminal.type(CTRL_O)
        terminal.wait_for(r"│ print")
        chats.provider.release()
        terminal.wait_for("→ seen early")
        terminal.wait_for("▸")
        terminal.wait_for_prompt()


def test_ctrl_c_ends_the_turn_and_not_the_chat(chats):
    chats.provider.script = script = [
        Says("FINAL(nobody sees this one)", delay=0.3),
        cell("y = 41"),
        "FINAL(it is kept in a variable)",
        cell("z = 1\nimport time\nfor i in range(600): time.sleep(0.1)"),
        cell("print(llm_query('long'))"),
        Hangs(),
        Hangs(),
        cell("print(y + 1, 'z' in globals())"),
        "FINAL(that is the number)",
    ]
    with chats.terminal() as terminal:
        terminal.wait_for_prompt()
        terminal.stop_turn("while the kernel starts", "the kernel starts")
        chats.provider.script = script[1:]
        terminal.turn("keep it")
        terminal.stop_turn("in a cell", "cell . runs")
        terminal.stop_turn("in a sub-call", "0/1 llm_query")
        terminal.stop_turn("while the model writes", "the model reads")
        terminal.turn("what is it?")
        terminal.type(CTRL_C)
        terminal.wait_for("Ctrl-D or /exit leaves")
        terminal.type(f"/unfold{ENTER}")
        terminal.wait_for("→ 42 False")
        terminal.wait_for_prompt()
        terminal.type(f"/exit{ENTER}")
        assert terminal.wait_for_end() == 0


def test_a_killed_chat_is_resumed_with_its_variables_and_its_model(chats):
    chats.provider.script = [
        cell("word = 'kept' + '!'"),
        "FINAL(I keep a word for you)",
        "FINAL(another model says it)",
    ]
    with chats.terminal() as terminal:
        terminal.wait_for_prompt()
        terminal.turn("Keep a word.")
        terminal.command("/model other-model", "other-model answers")
        terminal.turn("Who are you?")
        terminal.process.kill(signal.SIGKILL)
        terminal.wait_for_end()
    chats.provider.script = [cell("print(word)"), "FINAL(here it is again)"]
    with chats.terminal("--resume") as terminal:
        terminal.wait_for("I keep a word for you")
        terminal.wait_for_prompt()
        terminal.turn("Which word?")
        terminal.command("/unfold", "→ kept!")
        terminal.command("/save talk.md", "Written to talk.md")
    saved = (chats.folder / "talk.md").read_text()
    assert [word in saved for word in ("Keep a word.", "Who are you?", "print(word)")] == [True] * 3
    assert [request.body["model"] for request in chats.provider.requests[-3:]] == [
        "other-model",
        "loopback-model",
        "loopback-model",
    ]


def test_errors_of_a_provider_are_a_line_and_the_chat_goes_on(chats):
    chats.provider.script = [Fails(401, "Incorrect API key"), Fails(429, "Slow down"), "FINAL(all is well now)"]
    key = chats.environment.pop("OPENAI_API_KEY")
    with chats.terminal() as terminal:
        terminal.wait_for_prompt()
        terminal.type(f"hello{ENTER}")
        terminal.wait_for("✗ No API key for 'openai': set OPENAI_API_KEY")
        terminal.wait_for_prompt()
        (chats.folder / ".env").write_text(f"OPENAI_API_KEY={key}\n")
        for place, what in enumerate((r"HTTP 401\): Incorrect API key. Check the key", r"HTTP 429\): Slow down")):
            terminal.type(f"again{ENTER}")
            terminal.wait_for(what)
            terminal.wait_for("▸", times=place + 1)
            terminal.wait_for_prompt()
        terminal.type(f"once more{ENTER}")
        terminal.wait_for("all is well now")


def test_history_lines_and_completion(chats):
    chats.provider.script = ["FINAL(I have read both lines)", "FINAL(read them once more)"]
    (chats.folder / "apples.txt").write_text("red")
    with chats.terminal() as terminal:
        terminal.wait_for_prompt()
        terminal.type(f"one{ALT_ENTER}two\\{ENTER}three")
        terminal.wait_for("· three")
        terminal.turn("")
        terminal.type("/cont\t")
        terminal.wait_for("/context")
        terminal.type(" app\t")
        terminal.wait_for("apples.txt")
        terminal.type(ENTER)
        terminal.wait_for("apples.txt: 1 text in the context")
        terminal.wait_for_prompt()
        terminal.command("/modle", "did you mean 'model'?")
        terminal.type(CTRL_D)
        assert terminal.wait_for_end() == 0
    assert chats.provider.requests[0].prompt.count("one two three") == 1
    file = chats.folder / "state" / "rlm-kernel" / "chat-history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with chats.terminal() as terminal:
        terminal.wait_for_prompt()
        terminal.type(UP * 3)
        terminal.wait_for("· three")


@pytest.mark.full
def test_a_narrow_terminal_without_colours_that_changes_its_size(chats):
    chats.environment["NO_COLOR"] = "1"
    words = "This sentence is longer than the terminal is wide. " * 3
    chats.provider.script = [
        Says(f"FINAL({words}\n\n```python\nx = 1\n```\n\nEnd.)", delay=0.02),
        cell("print('x' * 200)"),
        f"FINAL({words})",
    ]
    with chats.terminal(columns=40, lines=20) as terminal:
        terminal.wait_for_prompt()
        terminal.turn("first")
        assert max(map(len, terminal.text.splitlines())) <= 40
        assert " ".join(terminal.whole.split()).count("This sentence is longer than the terminal is wide.") == 3
        terminal.resize(60, 20)
        terminal.turn("second")
        assert terminal.whole.count("> second") == 1
    assert not re.search(rb"\x1b\[[\d;]*(3[0-7]|4[0-7]|9[0-7]|38|48)[\d;]*m", terminal.raw)


def test_foreign_text_cannot_reach_the_terminal(chats):
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m"
    chats.provider.script = [cell(f"print({evil!r})"), f"FINAL(an answer that is {evil} evil [x](http://a/{evil}))"]
    (chats.folder / f"a{evil.replace('/', '')}.txt").write_text("text")
    with chats.terminal(".", "--model", "loopback-model") as terminal:
        terminal.wait_for_prompt()
        terminal.command("/unfold on", "Each run is shown")
        terminal.turn("go")
        terminal.command("/context", "1 keys")
    shown = terminal.raw.decode()
    assert [code for code in ("\x1b]", "\x1b[2J", "\x9b") if code in shown] == []
    assert "an answer that is" in terminal.whole


@pytest.mark.full
@pytest.mark.parametrize(("press", "ran"), [("y", True), ("n", False)])
def test_a_person_decides_about_each_cell(chats, press, ran):
    chats.provider.script = [cell("open('file', 'w').close()\nprint('it ' + 'ran')"), "FINAL(that was it)"]
    with chats.terminal("--confirm") as terminal:
        terminal.wait_for_prompt()
        terminal.type(f"go{ENTER}")
        terminal.wait_for("Run this cell")
        terminal.type(press)
        terminal.wait_for("▸")
        terminal.wait_for_prompt()
        terminal.command("/unfold", "▾")
        assert ("→ it ran" in terminal.whole) is ran
