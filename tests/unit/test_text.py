import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.text import format_tokens, not_blank, plain

hostile = st.text(
    st.one_of(
        st.sampled_from("\x1b\x07\x9b\x9c\x9d\\[]0123;?mKHJ\r\n\b\t P_^X\u202e\u2028\ud800\udfff"),
        st.characters(),
    )
)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain words, été, 漢字, 🙂\n\tand a tab", "plain words, été, 漢字, 🙂\n\tand a tab"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[38:2::255:0:0mred\x1b[m", "red"),
        ("\x9b31mred\x9b0m", "red"),
        ("\x1b]0;a new title\x07after", "after"),
        ("\x1b]8;;http://example.org\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x1b]52;c;Y3VybCBldmls\x1b\\clipboard", "clipboard"),
        ("\x1bPq#0;2;0;0;0\x1b\\sixel", "sixel"),
        ("\x1b_G payload\x1b\\kitty", "kitty"),
        ("\x1b[2J\x1b[H\x1b[?1049hcleared", "cleared"),
        ("\x1bcreset\x1b(B\x1b=", "reset"),
        ("\x1b]0;never ended", "0;never ended"),
        ("bell\x07 null\x00 del\x7f nel\x85", "bell null del nel"),
        ("admin\u202etxt.exe\u2066", "admintxt.exe"),
        ("one\u2028two", "one\ntwo"),
        ("half \ud83d", "half \N{REPLACEMENT CHARACTER}"),
        ("class A:\n\x0c\n    pass", "class A:\n\n    pass"),
    ],
)
def test_only_text_is_left(written, shown):
    assert plain(written) == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("10%\r50%\r100%\n", "100%\n"),
        ("100%|####|\r\x1b[Kdone\n", "done\n"),
        ("\r 50%|##  |\r100%|####|\r           \r", "100%|####|"),
        ("a\r\nb\r\r\nc", "a\nb\nc"),
        ("one\n10%\r20%\r\ntwo", "one\n20%\ntwo"),
        ("\r\r\r", ""),
        ("|\b/\b-\bdone", "done"),
        ("N\bNA\bAM\bME\bE", "NAME"),
    ],
)
def test_a_progress_bar_shows_its_last_state(written, shown):
    assert plain(written) == shown


@given(hostile)
def test_the_result_holds_nothing_a_terminal_obeys(text):
    shown = plain(text)
    shown.encode()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)


@given(hostile)
def test_cleaning_twice_is_cleaning_once(text):
    assert plain(plain(text)) == plain(text)


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]) | st.sampled_from("\n\t")))
def test_ordinary_text_stays_as_it_is(text):
    assert plain(text) == text


@pytest.mark.timeout(30)  # a quadratic pass would take hours
@pytest.mark.parametrize("attack", ["\x1b]", "\x1b[", "\x1b[1;", "\x1bP", "\b", "x\b", "\r", "\r ", "\x1b"])
def test_hostile_repetitions_take_linear_time(attack):
    plain(attack * 1_000_000)


def test_tokens_that_are_an_estimate_have_a_mark():
    assert format_tokens(1200, 34) == "1,200 tokens in, 34 out"
    assert format_tokens(1200, 34, 34) == "1,200 tokens in, 34 out (estimated)"


@pytest.mark.parametrize("reply", ["", " \n\t", "\u3000"])
def test_a_reply_of_blanks_goes_back_with_a_word(reply):
    assert not_blank(reply) == "(empty)"
    assert not_blank(" 42 ") == " 42 "
