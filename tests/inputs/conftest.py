"""One child process reads the documents of most tests: its imports take longer than the tests."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from by_hand import pdf

from rlm_kernel import inputs
from rlm_kernel.documents.reader import DocumentReader


@pytest.fixture(scope="session")
def shared_reader():
    with DocumentReader(max_seconds=25.0, max_seconds_together=1e6) as reader:
        yield reader


@pytest.fixture
def shared_child(monkeypatch, shared_reader):
    """`inputs.load` uses a child process that other tests use, too."""
    monkeypatch.setattr(inputs, "DocumentReader", lambda: nullcontext(shared_reader))


@pytest.fixture(scope="session")
def load_and_listen(shared_reader):
    """Load a folder in the shared child; returns the texts, and what is said about them."""

    def load(folder):
        said = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rlm_kernel.terminal.print_note", said.append)
            patch.setattr(inputs, "DocumentReader", lambda: nullcontext(shared_reader))
            return inputs.load(folder), said

    return load


@pytest.fixture
def load(tmp_path, capsys, shared_child):
    """Load a folder with one file and a harmless PDF; returns the texts and what stderr says."""
    del shared_child

    def load(name, content, **options):
        folder = tmp_path / "given"
        folder.mkdir()
        (folder / name).write_bytes(content)
        (folder / "z.pdf").write_bytes(pdf(text="still read"))
        texts = inputs.load(folder, **options)
        assert texts["z.pdf"] == "still read\n\n"
        return texts, capsys.readouterr().err

    return load
