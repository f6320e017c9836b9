"""A run in one file, `rlm export --bundle`: it runs where nothing of ours is, and our own tools read it."""

from __future__ import annotations

import base64
import io
import re
import zipfile

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from trajectory.stories import cell, codes, equal, executed, told

from rlm import RLM, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.cli import main
from rlm_kernel.errors import RecordingError
from rlm_kernel.replay.replayer import replay
from rlm_kernel.trajectory.log import archive
from rlm_kernel.trajectory.log.reader import read_log

WITHOUT_US = """
import sys
class Refuse:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("rlm", "rlm_kernel", "rlm_magics"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse)
"""
LONG = "ünïcode and a long text. " * 2_000


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    replies = [
        cell("parts = context.split('. ')\nanswers = llm_query_batched(parts[:3] + ['x' * 5_000])\nlen(answers)"),
        cell("rlm_query('child: 1 2 3')"),
        cell("FINAL([len(context), answers[0]])"),
    ]
    child = [cell("numbers = context.split()[1:]\nllm_query('the child asks')"), "FINAL_VAR(numbers)"]
    return told(tmp_path_factory.mktemp("story"), replies, context=LONG, child=child)


@pytest.fixture
def without_us(tmp_path, monkeypatch):
    """The kernels of this test cannot import rlm-kernel."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(WITHOUT_US)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "guard"))
    return tmp_path


def bundle(story, folder, name, source=None):
    folder.mkdir(exist_ok=True)
    assert main(["export", "--bundle", str(source or story.path), "-o", str(folder / name)]) == 0
    return folder / name


def run_at(path):
    """The notebook after it ran, in its own kernelspec and folder, with nothing else of the run in reach."""
    notebook = nbformat.read(path, 4)
    return NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(path.parent)}}).execute()


def test_a_bundled_notebook_runs_in_a_kernel_without_rlm_kernel(story, without_us):
    path = bundle(story, without_us / "elsewhere", "run.ipynb")
    nbformat.validate(nbformat.read(path, 4))
    assert str(story.log.parent) not in path.read_text()
    assert equal(story, run_at(path))
    (left,) = path.parent.iterdir()
    assert left == path


def test_an_unpacked_archive_runs_in_a_kernel_without_rlm_kernel_and_so_do_its_children(story, without_us):
    path = bundle(story, without_us / "elsewhere", "run.zip")
    zipfile.ZipFile(path).extractall(path.parent)
    assert equal(story, run_at(path.parent / story.path.name))
    (child,) = story.children()
    assert "THE CHILD ASKS" in str(codes(run_at(path.parent / child.relative_to(story.log.parent)))[0].outputs)


def test_a_bundled_page_holds_the_notebook(story, tmp_path):
    text = bundle(story, tmp_path, "run.html").read_text()
    (held,) = re.findall(r'href="data:application/x-ipynb\+json;base64,([^"]+)"', text)
    (tmp_path / "saved.ipynb").write_bytes(base64.b64decode(held))
    assert equal(story, run_at(tmp_path / "saved.ipynb"))
    assert "data:application/x-ipynb" not in export_page(story, tmp_path)


def export_page(story, folder):
    assert main(["export", "--to", "html", str(story.path), "-o", str(folder / "plain.html")]) == 0
    return (folder / "plain.html").read_text()


@pytest.mark.parametrize("name", ["run.ipynb", "run.zip"])
def test_our_own_replay_reads_a_bundle(story, tmp_path, name):
    path = bundle(story, tmp_path, name)
    report = replay(path)
    assert report.equal, report
    assert read_log(path).flaw is None


def test_an_edited_cell_of_a_bundled_notebook_is_replayed_as_edited(story, tmp_path):
    path = bundle(story, tmp_path, "run.ipynb")
    notebook = nbformat.read(path, 4)
    codes(notebook)[2].source = "FINAL('edited')"
    nbformat.write(notebook, path)
    assert replay(path, trust=True).answer == "edited"


def test_a_bundle_of_a_bundle_is_the_same(story, tmp_path):
    once = bundle(story, tmp_path, "once.ipynb")
    again = nbformat.read(bundle(story, tmp_path, "again.ipynb", once), 4)
    assert [c.metadata.get("tags") for c in again.cells].count(["rlm-bundle"]) == 1
    assert replay(bundle(story, tmp_path, "again.zip", tmp_path / "again.ipynb")).equal


def test_a_bundle_holds_the_earlier_runs_of_a_persistent_kernel(tmp_path):
    script = [cell("a = len(context)"), "FINAL_VAR(a)", cell("print(a, context_0[:7])"), "FINAL_VAR(a)"]
    logger = RLMLogger(tmp_path / "logs")
    with RLM(ScriptedLM(script), persistent=True, logger=logger) as rlm:
        rlm.completion(LONG, "q")
        rlm.completion("second", "q")
    path = tmp_path / "run.ipynb"
    assert main(["export", "--bundle", logger.log_file_path, "-o", str(path)]) == 0
    (shown,) = codes(run_at(path))
    assert shown.outputs[0].text == f"{len(LONG)} ünïcode\n"


def test_other_endings_are_refused(story, capsys):
    assert main(["export", "--bundle", str(story.path), "-o", "run.md"]) == 2
    assert "--bundle writes .ipynb, .html or .zip" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../outside.jsonl", "/outside.jsonl", "contexts/../../x.jsonl", "a.txt"])
def test_an_archive_with_other_files_is_refused(name):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr(name, "{}")
    with pytest.raises(RecordingError, match=r"not of a run|holds no log"):
        archive.unpack(content.getvalue())


def repacked(path, change):
    """The archive after `change(name, content)` gave the name and content of each file; None leaves one out."""
    made = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for entry in sorted(old.namelist(), reverse=True):
            new.writestr(*change(entry, old.read(entry)))
        new.mkdir("contexts")
        new.writestr("__MACOSX/._run.jsonl", b"\0")
    return made.getvalue()


@pytest.mark.parametrize("name", ["my run", "a+b", "x(1)", "été"])
def test_an_archive_has_the_names_of_its_logger(tmp_path, name):
    logger = RLMLogger(tmp_path / "logs", file_name=name)
    with RLM(ScriptedLM([cell("FINAL(1)")]), logger=logger) as rlm:
        rlm.completion("x")
    assert main(["export", "--bundle", logger.log_file_path, "-o", str(tmp_path / "run.zip")]) == 0
    assert replay(tmp_path / "run.zip").equal


def test_an_archive_that_a_person_packed_again_is_read(story, tmp_path):
    """In another order, with folders and what an operating system adds."""
    content = repacked(bundle(story, tmp_path, "run.zip"), lambda name, content: (name, content))
    (tmp_path / "again.zip").write_bytes(content)
    assert replay(tmp_path / "again.zip").equal


def test_a_damaged_archive_is_refused_each_time(story, tmp_path):
    content = bytearray(bundle(story, tmp_path, "run.zip").read_bytes())
    content[len(content) // 3] ^= 0xFF
    for _ in range(2):
        with pytest.raises(RecordingError, match="ZIP archive"):
            archive.unpack(bytes(content))


def test_an_archive_that_swells_is_refused(tmp_path):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("x.jsonl", b"0" * 150_000_000)
    with pytest.raises(RecordingError, match="150,000,000 bytes"):
        archive.unpack(made.getvalue())


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "run.zip").write_bytes(b"PK no")
    with pytest.raises(RecordingError, match=r"run\.zip is not the archive of a run"):
        read_log(tmp_path / "run.zip")


@pytest.mark.parametrize("missing", ["*", "contexts"])
def test_what_is_missing_is_one_message_without_our_source(story, tmp_path, missing):
    """A notebook that was sent without its files."""
    folder = tmp_path / "sent"
    (tmp_path / "all").mkdir()
    assert main(["export", "--bundle", str(story.path), "-o", str(tmp_path / "run.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "run.zip") as whole:
        names = [n for n in whole.namelist() if n.endswith(".ipynb") or (missing != "*" and not n.startswith(missing))]
        whole.extractall(folder, names)
    notebook = nbformat.read(folder / story.path.name, 4)
    with pytest.raises(CellExecutionError):
        executed(notebook, folder)
    ((error,),) = ([o for o in c.outputs if o.output_type == "error"] for c in notebook.cells[2:3])
    (line,) = error.traceback
    assert line == f"{error.ename}: {error.evalue}"
    assert len(line) < 1_500
    for needed in ("both .jsonl files", "contexts/", "prompts/", "rlm_replay_", "rlm export --bundle"):
        assert needed in line
