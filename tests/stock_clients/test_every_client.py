"""Every stock Jupyter client runs each of our kernelspecs: a value, an output, the directory, no key of the user.

`--full` runs all of the matrix; qtconsole needs PyQt6. The row of JupyterLab is `test_jupyterlab.py`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import nbclient
import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from places import PLACES, provided

from rlm_kernel.provisioners.kernelspecs import AVAILABLE, NOTEBOOK_KERNELSPEC, spec_folder

CODE = """\
x = 6 * 7
import os
print("printed", x, os.getcwd(), os.environ.get("OPENAI_API_KEY"), "pid", os.getpid(), "end")"""
KEY = "sk-of-the-user"
PRIVATE = {"modal", "prime", "daytona", "e2b", "jupyter", "ssh"}
"""Places that do not see the client's directory."""
HAS_QT = importlib.util.find_spec("qtconsole") and importlib.util.find_spec("PyQt6")
SECONDS = 100


def command(name, *arguments, said="", **environment):
    """What a command of this Python's environment prints."""
    script = Path(sysconfig.get_path("scripts"), name)
    done = subprocess.run(
        [script, *map(str, arguments)], input=said, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def notebook(spec):
    made = new_notebook(cells=[new_code_cell(CODE)])
    made.metadata.kernelspec = {"name": spec, "display_name": spec, "language": "python"}
    nbformat.write(made, "task.ipynb")
    return "task.ipynb"


def printed(path):
    return "".join(o["text"] for c in nbformat.read(path, 4).cells for o in c.outputs if o.get("name") == "stdout")


def jupyter_execute(spec):
    """Its working directory is a `Path`."""
    command("jupyter-execute", "--inplace", f"--kernel_name={spec}", notebook("of-another-machine"))
    return printed("task.ipynb")


def nbconvert(spec):
    return command("jupyter-nbconvert", "--execute", "--to", "markdown", "--stdout", notebook(spec))


def papermill(spec):
    command("papermill", notebook(spec), "out.ipynb", "--no-progress-bar")
    return printed("out.ipynb")


def papermill_engine(spec):
    command("papermill", "--engine", "rlm", notebook(spec), "out.ipynb", "--no-progress-bar")
    return printed("out.ipynb")


def nbclient_in_python(spec):
    made = nbformat.read(notebook(spec), 4)
    nbclient.NotebookClient(made, timeout=60).execute(cwd=str(Path.cwd()))
    nbformat.write(made, "task.ipynb")
    return printed("task.ipynb")


def jupyter_run(spec):
    Path("task.py").write_text(CODE)
    return command("jupyter-run", f"--kernel={spec}", "task.py")


def jupyter_console(spec):
    """At the pace of a person: the client waits forever for what a kernel told before it listened (also python3's)."""
    said = "\n".join([*CODE.splitlines(), "input('who? ')", "me", "exit", ""])
    script = Path(sysconfig.get_path("scripts"), "jupyter-console")
    typing = f"sleep 3; printf %s {shlex.quote(said)}"
    piped = f"({typing}) | {shlex.quote(str(script))} --simple-prompt --kernel={shlex.quote(spec)}"
    shown = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, timeout=SECONDS, check=True).stdout
    assert "Out[4]: 'me'" in shown
    return shown


def jupytext(spec):
    Path("task.py").write_text(CODE)
    command("jupytext", "--set-kernel", spec, "--execute", "--to", "ipynb", "-o", "task.ipynb", "task.py")
    return printed("task.ipynb")


def qtconsole(spec):
    pytest.importorskip("qtconsole")
    if HAS_QT is None:
        pytest.skip("needs PyQt6")
    driver = Path(__file__).with_name("qtconsole_driver.py")
    return command("python", driver, spec, CODE, QT_QPA_PLATFORM="offscreen")


CLIENTS = [
    jupyter_execute, nbconvert, papermill, papermill_engine, nbclient_in_python,
    jupyter_run, jupyter_console, jupytext, qtconsole,
]  # fmt: skip
SPECS = {NOTEBOOK_KERNELSPEC: None, **{spec: name for name, spec in AVAILABLE.items()}}
"""The kernelspecs, and their environments."""
OFTEN = [(jupyter_execute, "rlm-local"), (jupyter_run, "rlm-local"), (jupyter_console, "rlm-local"),
         (nbclient_in_python, "rlm-local"), (jupyter_run, "rlm"), (jupyter_run, "rlm-docker")]  # fmt: skip
"""What runs in every run: the clients that start a kernel in different ways."""


def matrix():
    for spec in SPECS:
        for client in CLIENTS:
            if (client, spec) == (papermill_engine, "rlm-ssh"):
                continue  # our engine reads the kernelspecs of the package, which say nothing of the tests' sshd
            marks = [] if (client, spec) in OFTEN else [pytest.mark.full]
            marks += [] if spec in ("rlm", "rlm-local") else [pytest.mark.elsewhere]
            yield pytest.param(client, spec, marks=marks, id=f"{client.__name__}-{spec}")


def install(spec, options, share):
    """Install a kernelspec as `pip install` does, with the options of its place in it."""
    fields = json.loads((spec_folder(spec) / "kernel.json").read_text())
    if options:
        fields["metadata"]["kernel_provisioner"]["config"] |= options
    folder = share / "kernels" / spec
    shutil.copytree(spec_folder(spec), folder)
    (folder / "kernel.json").write_text(json.dumps(fields))


@pytest.mark.parametrize(("client", "spec"), list(matrix()))
def test_a_stock_client_runs_a_kernelspec(client, spec, tmp_path, monkeypatch, request):
    place = SPECS[spec]
    options = provided(place, request)[1] if place else {}
    install(spec, options, tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    if place == "jupyter":  # for our engine, which reads the kernelspecs of the package
        monkeypatch.setenv("JUPYTER_SERVER_URL", options["url"])
        monkeypatch.setenv("JUPYTER_TOKEN", options["token"])
    shown = client(spec)
    words = next(line for line in shown.splitlines() if "printed 42" in line and line.endswith(" end")).split()
    _, _, directory, key, _, pid, _ = words[words.index("printed") :]
    assert key == (KEY if spec == NOTEBOOK_KERNELSPEC and client is not papermill_engine else "None")
    assert (directory == str(Path.cwd())) is (place not in PRIVATE)
    if spec in ("rlm", "rlm-local"):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(pid)).wait(SECONDS)  # jupyter console has asked for its end, and does not wait


def test_nbdime_shows_two_executions_as_equal():
    """nbdime starts no kernel; it reads what ours have written."""
    for name in ("one.ipynb", "other.ipynb"):
        made = nbformat.read(notebook("rlm-local"), 4)
        made.cells[0].update(source="print(hash('a text'))\n{1, 'a'}", id="same")
        nbclient.NotebookClient(made, timeout=60, record_timing=False).execute(cwd=str(Path.cwd()))
        nbformat.write(made, name)
    assert command("nbdiff", "one.ipynb", "other.ipynb") == ""


def test_every_kernelspec_has_our_icon():
    icons = {(spec_folder(spec) / "logo-svg.svg").read_text() for spec in SPECS}
    assert icons == {(spec_folder(NOTEBOOK_KERNELSPEC) / "logo-svg.svg").read_text()}


def test_every_place_is_in_the_matrix():
    assert set(SPECS.values()) - {None} <= PLACES.keys()
