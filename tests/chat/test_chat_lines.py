"""`rlm chat` without a terminal, and its parts."""

from __future__ import annotations

import pytest
from agent_parts import cell
from loopback import Fails
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from rlm_kernel.chat.commands import command_of
from rlm_kernel.chat.conversation import texts_of
from rlm_kernel.chat.history import MAX_BYTES, open_history, path_of_history
from rlm_kernel.chat.markdown import MAX_BLOCK, MarkdownBlocks
from rlm_kernel.chat.prompt import CommandCompleter


def test_each_line_is_a_message_and_only_answers_go_to_stdout(chats):
    chats.provider.script = [
        cell("x = 5"),
        "FINAL(it is kept)",
        Fails(401, "Wrong key"),
        cell("print(x)"),
        "FINAL(five)",
    ]
    done = chats.lines(stdin=b"keep it\n\nfails\n/save talk.md\n/nonsense\nwhat is it?\n")
    assert done.stdout == b"it is kept\nfive\n"
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"rlm: openai, model 'loopback-model' (HTTP 401): Wrong key" in done.stderr
    assert b"Unknown command /nonsense" in done.stderr
    assert "it is kept" in (chats.folder / "talk.md").read_text()
    assert done.returncode == 2


def test_limits_of_the_chat_end_what_comes_after(chats):
    chats.provider.script = ["FINAL(this takes all of them)"]
    done = chats.lines("--max-total-tokens", "100", stdin=b"one\ntwo\n")
    assert done.stdout == b"this takes all of them\n"
    assert done.stderr.count(b"its limit is 100: raise max_tokens") == 1
    assert done.returncode == 3


def test_what_cannot_begin_is_said(chats):
    assert chats.lines("--resume", stdin=b"").stderr.startswith(b"rlm: There is no conversation in rlm_logs")
    (chats.folder / "a.txt").write_text("text")
    assert b"raise --max-context-bytes" in chats.lines("--max-context-bytes", "1", "a.txt", stdin=b"").stderr
    assert b"PATH missing cannot be read" in chats.lines("missing", stdin=b"").stderr


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/context a b", ("context", "a b")),
        ("/HELP", ("help", "")),
        ("/", ("", "")),
        ("/etc/hosts: what is it?", None),
        ("what is /help?", None),
    ],
)
def test_a_line_with_a_slash_is_a_command_and_a_path_is_not(line, command):
    assert command_of(line) == command


def test_blocks_are_finished_once():
    text = "# A\n\nwords\nmore\n\n```python\na = 1\n\nb = 2\n```\n\n- x\n\n- y\n\nend\n"
    blocks, done = MarkdownBlocks(), []
    for letter in text:
        done += blocks.feed(letter)
    done += blocks.finish()
    assert "".join(done) == text
    assert [block.split()[0] for block in done] == ["#", "words", "```python", "-", "end"]


def test_a_block_without_end_is_not_parsed_again_and_again():
    blocks = MarkdownBlocks()
    done = [part for _ in range(2_000) for part in blocks.feed("word " * 20 + "\n")]
    assert len(blocks.tail) <= MAX_BLOCK + 200
    assert len(done) > 5


def test_the_keys_of_a_context_are_paths():
    assert texts_of("docs/", {"a.md": "x"}) == {"docs/a.md": "x"}
    assert texts_of(".", {"a.md": "x"}) == {"a.md": "x"}
    assert texts_of("./a.md", "x") == {"a.md": "x"}


def test_the_history_does_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = open_history()
    for number in range(30):
        history.store_string(f"{number} " + "x" * (MAX_BYTES // 20))
    path_of_history().chmod(0o644)
    kept = list(open_history().load_history_strings())
    assert path_of_history().stat().st_size <= MAX_BYTES // 2 + 10
    assert kept[0].startswith("29 ")
    assert path_of_history().stat().st_mode & 0o777 == 0o600


def test_names_of_files_are_foreign(tmp_path, monkeypatch):
    (tmp_path / "good.txt").touch()
    (tmp_path / "goo\x1b[2Jd.txt").touch()
    monkeypatch.chdir(tmp_path)
    line = Document("/context goo")
    assert [one.text for one in CommandCompleter().get_completions(line, CompleteEvent())] == ["d.txt"]
