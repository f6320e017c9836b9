"""`view()` in a notebook, `rlm view` on the command line, and the component that both show."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import random
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from laboratory import Tab, lab, write
from viewer import long_logs
from viewer.conftest import shot
from viewer.reference_logs import reference_log

import rlm
from rlm.logger import RLMLogger
from rlm_kernel.cli import main
from rlm_kernel.installation import install_command
from rlm_kernel.viewer import component, fallback
from rlm_kernel.viewer.fallback import folded_html
from rlm_kernel.viewer.log_source import log_source
from rlm_magics.result import RLMResult

PAGE = Path(component.__file__).parent / "page"


class Shape(HTMLParser):
    """The elements of a page, and whether they have attributes."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs


def completion(**kwargs):
    replies = ["Look.\n```repl\nprint(llm_query('one'))\n```", "FINAL(done)"]
    with rlm.RLM(backend=rlm.ScriptedLM(replies), other_backends=[rlm.ScriptedLM(["two"])], **kwargs) as one:
        return one.completion("the context", "The question?")


def test_a_result_becomes_a_widget_that_gives_its_lines(monkeypatch):
    widget = rlm.view(completion(logger=RLMLogger()), height=500)
    sent = []
    monkeypatch.setattr(widget, "send", lambda content, buffers: sent.append((content, buffers)))
    widget._answer(widget, {"from": 0, "log": 0}, [])
    (content, (lines,)) = sent[0]
    assert content == {"from": 0, "log": 0, "fresh": False, "grows": False, "error": None}
    turn = ["asked", "reply", "cell", "subcall", "answer", "subcall_end", "cell_result", "iteration"]
    assert [json.loads(line)["type"] for line in lines.splitlines()] == [
        "metadata", *turn, "asked", "reply", "iteration", "finished"
    ]  # fmt: skip
    widget._answer(widget, {"from": len(lines), "log": 0}, [])
    assert sent[1][1] == [b""]
    for nonsense in ({"from": -1, "log": 0}, {"from": "0", "log": 0}, {"from": 0}, {}, None, []):
        widget._answer(widget, nonsense, [])
    assert len(sent) == 2
    assert widget.height == 500


def test_a_result_and_its_log_are_one_run(tmp_path):
    done = completion(logger=RLMLogger(tmp_path))
    assert log_source(done) == log_source(next(tmp_path.glob("*.events.jsonl")))
    kept = log_source(completion(logger=RLMLogger()))
    logged = [json.loads(line) for line in log_source(done).read(0, 10**7).splitlines()]
    told = [json.loads(line) for line in kept.content.splitlines()]
    left_out = {"context", "kernel_ready"}
    assert [line["type"] for line in told] == [one["type"] for one in logged if one["type"] not in left_out]
    for line in tmp_path.glob("*.jsonl"):
        line.unlink()
    assert "done" in folded_html(log_source(done))
    assert type(pickle.loads(pickle.dumps(done)).metadata) is type(copy.deepcopy(done).metadata) is dict


def test_where_there_is_no_widget_a_folded_text_stands_for_it(long_log):
    data, _ = rlm.view(long_log)._repr_mimebundle_()
    assert set(data) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
    page = data["text/html"]
    assert Shape(page).tags <= {"details", "summary", "pre", "p", "b"}
    assert "41 of 600" in page
    assert page.count("<details>") == 31


def test_the_folded_text_holds_nothing_active(tmp_path):
    page = folded_html(log_source(long_logs.hostile_run(tmp_path / "hostile.jsonl", long=100_000)))
    assert Shape(page).attributes == []
    assert Shape(page).tags <= {"details", "summary", "pre", "p", "b"}
    assert len(page) < 60_000
    assert "\u202e" not in page
    assert "Forty-two" in folded_html(log_source(reference_log(tmp_path / "reference.jsonl")))


def test_the_folded_text_of_a_damaged_log_is_still_one(tmp_path, long_log):
    lines = [json.loads(line) for line in reference_log(tmp_path / "reference.jsonl").read_text().splitlines()]
    for seed in range(200):
        odd = [long_logs.damaged(line, random.Random(seed), 0.1) for line in lines]
        (tmp_path / "odd.jsonl").write_text("\n".join(map(json.dumps, odd)))
        assert Shape(folded_html(log_source(tmp_path / "odd.jsonl"))).tags <= {"details", "summary", "pre", "p", "b"}


def test_the_folded_text_of_a_large_log_has_its_answer_and_says_that_it_is_cut(long_log, monkeypatch):
    whole = folded_html(log_source(long_log))
    monkeypatch.setattr(fallback, "_MAX_BYTES", long_log.stat().st_size // 2)
    page = folded_html(log_source(long_log))
    assert "41 of 600" in page
    assert "only its beginning and its end" in page
    assert "only its beginning" not in whole
    assert whole.count("<summary>Turn") > page.count("<summary>Turn") > 0


def test_a_line_that_is_made_to_break_its_readers_is_left_out_of_the_folded_text(tmp_path):
    log = tmp_path / "deep.jsonl"
    log.write_text(f'{{"type":"iteration","x":{"[" * 100_000}\n{{"type":"finished","response":"the answer"}}\n')
    assert "the answer" in folded_html(log_source(log))


def test_a_result_that_ended_early_is_not_shown_as_an_answer():
    done = dataclasses.replace(completion(logger=RLMLogger()), response="the draft")
    known = {field.name: getattr(done, field.name) for field in dataclasses.fields(done)}
    early = RLMResult(**{**known, "error": rlm.CancellationError(message="stopped")})
    line = json.loads(log_source(early).content.splitlines()[-1])
    assert (line["type"], line["error_type"], line["error"]) == ("failed", "CancellationError", "stopped")
    assert line["partial_answer"] == "the draft"
    assert line["usage_summary"] == done.usage_summary.to_dict()
    assert "<b>Stopped</b>" in folded_html(log_source(early))


def test_what_cannot_be_viewed_is_said():
    with pytest.raises(rlm.ConfigError, match="give the RLM a logger"):
        rlm.view(completion())
    with pytest.raises(rlm.ConfigError, match="not int"):
        rlm.view(3)
    with pytest.raises(rlm.RecordingError, match=r"no log 'missing.jsonl'"):
        rlm.view("missing.jsonl")


def test_without_anywidget_the_extra_is_named(long_log, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "rlm_kernel.viewer.widget", raising=False)
    with pytest.raises(rlm.ConfigError, match=re.escape(install_command("widget"))):
        rlm.view(long_log)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--export", "x.html"], "give its log"),
        (["--export", "x.txt", "LOG"], "ends with .html"),
        (["--export", "x.html", "missing.jsonl"], "no log 'missing.jsonl'"),
        (["missing"], "no folder or log 'missing'"),
        ([], "no folder ./rlm_logs or ./logs"),
        (["LOG", "--port", "99999"], "Port 99999"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_fix(arguments, said, long_log, capsys):
    code = main(["view", "--no-browser", *(str(long_log) if word == "LOG" else word for word in arguments)])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_ctrl_c_ends_the_server_in_peace(logs, long_log):
    command = [sys.executable, "-m", "rlm_kernel.cli", "view", str(long_log), "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}#long\.jsonl\n", server.stdout.readline())
        assert "Ctrl-C to end it" in server.stderr.readline()
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
        assert server.stderr.read() == ""


@pytest.mark.parametrize("use", ["page", "widget"])
def test_the_component_is_one_module_without_imports(use):
    script = component.script(use)
    assert re.search(r"^\s*(import\b|export (?!default))", script, re.MULTILINE) is None
    assert script.count("export default") == (use == "widget")
    assert "</script" not in script
    assert "<!--" not in script
    assert "http://" not in script.replace("http://www.w3.org/2000/svg", "").replace(
        "http://www.w3.org/1998/Math/MathML", ""
    )
    assert "https://" not in script


def test_every_module_is_used_short_and_sets_no_markup():
    files = sorted(PAGE.glob("*.js"))
    assert {file.stem for file in files} == set(component.modules())
    for file in files:
        source = file.read_text()
        assert len(source.splitlines()) < 300
        assert source.startswith("// ")
        assert (
            re.search(
                r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|setHTML|srcdoc", source
            )
            is None
        )
        for names, _ in component._IMPORT.findall(source):
            assert [name for name in re.findall(r"\w+", names) if len(re.findall(rf"\b{name}\b", source)) < 2] == []
        assert len(re.findall(r"^import\b", source, re.MULTILINE)) == len(component._IMPORT.findall(source))


@pytest.mark.timeout(300)
def test_the_widget_in_jupyterlab_shows_a_run_and_keeps_its_keys(chromium, logs, long_log):
    long_logs.hostile_run(logs / "hostile.jsonl", long=6_000_000)
    cells = [
        "from rlm import view\nview('long.jsonl', height=700)",
        "view('hostile.jsonl')",
        "print('still a notebook')",
    ]
    write(logs / "notebook.ipynb", cells)
    with lab(logs) as address:
        tab = Tab(chromium, address, "notebook.ipynb")
        tab.ready()
        tab.run(0)
        page = tab.page
        widget = tab.cells.nth(0).locator(".rlm-viewer")
        widget.get_by_role("heading", name="Turn 30").wait_for()
        assert "600" in widget.locator(".facts").inner_text()
        widget.locator("[data-go='0']").click()
        page.keyboard.press("j")
        assert widget.locator("[data-turn='1']").evaluate("(one) => one.getRootNode().activeElement === one")
        widget.locator("[data-card='1'] .calls > summary").click()
        assert widget.locator("[data-card='1'] details.call").count() == 20
        shot(page, "viewer-widget")
        page.keyboard.press("d")  # twice, it would delete the cell
        page.keyboard.press("d")
        assert tab.cells.count() == 3
        tab.run(1)
        hostile = tab.cells.nth(1).locator(".rlm-viewer")
        hostile.get_by_text("of 6,000,018").wait_for()
        assert hostile.locator("#broken, img").count() == 0
        page.keyboard.press("Control+s")
        page.close()
    saved = (logs / "notebook.ipynb").read_text()
    assert "y" * 10_000 not in saved
    assert (logs / "notebook.ipynb").stat().st_size < 2_000_000
