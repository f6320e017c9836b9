"""The page, the comparison and the widget in Debian's Firefox."""

from __future__ import annotations

import os

import pytest
from firefox import FIREFOX, firefox
from laboratory import lab, write
from viewer import long_logs

pytestmark = [pytest.mark.full, pytest.mark.timeout(400)]

ROOT = "document.querySelector('#rlm-viewer').shadowRoot"
FOCUS = f"({ROOT}.activeElement?.innerText ?? '').split('\\n')[0]"


@pytest.fixture
def page(tmp_path):
    if FIREFOX is None and "CI" not in os.environ:
        pytest.skip("there is no Firefox: apt-get install firefox-esr")
    (tmp_path / "profile").mkdir()
    with firefox(tmp_path / "profile") as one:
        yield one


def test_a_run_is_read_in_firefox_and_back_goes_back(page, served, long_log):
    page.open(served)
    page.until(f"{ROOT}.querySelector('.run-row')")
    page.press("j")
    page.press("Enter")
    page.until(f"{ROOT}.querySelector('[data-turn=\"29\"]')")
    page.press("j", "j", "j")
    page.until(f"{FOCUS} === 'Turn 3'")
    page.click(f"{ROOT}.querySelector('[data-card=\"2\"] .here')")
    page.until("location.hash === '#long.jsonl?turn=3'")
    page.shot("firefox-run")
    page.back()
    page.until("location.hash === '#long.jsonl'")
    page.back()
    page.until(f"{ROOT}.querySelector('.run-row')")
    page.open(f"{served}#long.jsonl?cell=12&call=19")
    page.until(f"{FOCUS} === '19'")
    assert page.said == []


def test_two_runs_are_compared_in_firefox(page, served, logs):
    long_logs.long_run(logs / "one.jsonl", turns=4, calls=2)
    long_logs.long_run(logs / "other.jsonl", turns=5, calls=3)
    page.open(served)
    page.until(f"{ROOT}.querySelectorAll('.pick input').length === 2")
    for number in (0, 1):
        page.click(f"{ROOT}.querySelectorAll('.pick')[{number}]")
    page.press("c")
    page.until(f"{ROOT}.querySelectorAll('.row-pair').length === 5")
    page.shot("firefox-compare")
    assert page.value("location.hash") == "#one.jsonl?with=other.jsonl"
    assert page.value(f"{ROOT}.querySelector('.scroller').scrollWidth <= innerWidth")
    assert page.said == []


def test_the_widget_shows_a_run_and_two_side_by_side_in_firefox(page, logs, long_log):
    long_logs.long_run(logs / "other.jsonl", turns=3, calls=2)
    write(logs / "notebook.ipynb", ["from rlm import view\nview('long.jsonl')", "view('long.jsonl', 'other.jsonl')"])
    with lab(logs) as address:
        page.open(address.format("notebook.ipynb"))
        page.until("document.body.innerText.includes('| Idle')")
        for number, found in enumerate(('[data-turn="29"]', ".row-pair")):
            cell = f"document.querySelectorAll('.jp-Notebook .jp-CodeCell')[{number}]"
            page.click(f"{cell}?.querySelector('.cm-content')")
            page.press("Control+Enter")
            page.until(f"{cell}.querySelector('.rlm-viewer')?.shadowRoot.querySelector('{found}')")
            page.value(f"{cell}.querySelector('.rlm-viewer').scrollIntoView()")
            page.shot(f"firefox-widget-{number}")
        assert page.value(
            "[...document.querySelectorAll('.rlm-viewer')].every((one) => !one.shadowRoot.querySelector('.here'))"
        )
