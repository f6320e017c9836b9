"""Every notebook in `notebooks/` runs, and shows what is stored in it.

Stored and fresh outputs are compared after one normaliser. It forgets times, colours, frames, and the counts of tokens,
because the prompts are edited more often than the notebooks are run.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))

PARAMETERS = {"rlm_task": "model = 'scripted'"}
"""With what the stored outputs of a notebook were made, besides its defaults."""

FORGOTTEN = [
    (r"\x1b\[[0-9;]*m", ""),
    (r"\d+(\.\d+)? (s|ms|min)\b", "T"),
    (r"'total_(input|output|cached)_tokens': \d+", r"'total_\1_tokens': N"),
    (r"[\d.,]+k? tokens? in, [\d.,]+k? out", "N tokens in, N out"),
    (r"used [\d,]+ tokens", "used N tokens"),
    (r"\d[\d,]* +\d[\d,]* +unknown", "N N unknown"),  # of the table of models
    (r"(?<=rlm_)(?:[^\W_][^\W_-]*(?:-[^\W_]+)*_)?\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{8}", "RUN"),
    (r"\[IPKernelApp\] [A-Z]+ \| .*(\n|$)", ""),  # of the kernels that papermill starts
    (r"[─╭╮╰╯│┌┐└┘ ]+", " "),
    (r"\s*\n\s*", "\n"),
]


def read(path):
    return nbformat.read(path, as_version=4)


def shown(cell):
    """What a cell shows, as text: its streams, and the plain text of its displays."""
    streams = {"stdout": "", "stderr": ""}
    rest = []
    for output in cell.outputs:
        if output.output_type == "stream":
            streams[output.name] += output.text
        else:
            rest.append(output.data["text/plain"])
    return "\n".join(map(normal, [*streams.values(), *rest]))


def normal(text):
    for pattern, replacement in FORGOTTEN:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Execute a notebook in a kernel of this Python, in a folder with the other notebooks."""
    write_kernel_spec(tmp_path / "kernels" / "python3")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    for path in NOTEBOOKS:
        shutil.copy(path, Path.cwd())

    def execute(path):
        notebook = read(path)
        for cell in code_cells(notebook):
            cell.outputs, cell.execution_count = [], None
        for cell in notebook.cells:
            if "parameters" in cell.metadata.get("tags", []) and path.stem in PARAMETERS:
                cell.source += f"\n{PARAMETERS[path.stem]}"
        place = {"metadata": {"path": str(Path.cwd())}}
        return NotebookClient(notebook, kernel_name="python3", resources=place, timeout=60).execute()

    return execute


def test_there_are_notebooks():
    assert {"quickstart.ipynb", "rlm_task.ipynb"} <= {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_is_stored_in_it(path, run):
    fresh = run(path)
    for before, now in zip(code_cells(read(path)), code_cells(fresh), strict=True):
        assert shown(now) == shown(before), f"cell {before.id}: run the notebook again and look at it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_as_it_was_run_from_top_to_bottom(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_the_machine_is_stored(path):
    text = path.read_text("utf-8")
    assert not re.search(r"/(home|root|Users|tmp|work|var)/", text)
    assert str(Path.home()) not in text
    assert sys.prefix not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_only_public_modules(path):
    assert not [cell.source for cell in code_cells(read(path)) if re.search(r"(import|from) rlm_kernel", cell.source)]


def test_the_normaliser_forgets_what_may_differ_and_nothing_else():
    one = "╭─ answer ──╮\n│ 42  │\n  \x1b[2m706 tokens in, 38 out\x1b[0m · 0.6 s\n  leader   2   1,485   72  unknown"
    two = "╭─ answer ─────╮\n│ 42     │\n  9,706 tokens in, 8 out · 12 s\n  leader   2   85   172  unknown\n"
    assert normal(one) == normal(two)
    assert normal(one) != normal(one.replace("42", "43"))
    assert normal(one) != normal(one.replace("leader   2", "leader   3"))
