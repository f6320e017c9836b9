"""Live REPLs can be looked into, when their run allows it, and looking leaves no trace."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from urllib.request import urlopen

import pytest
from jupyter_client.client import KernelClient
from laboratory import lab, wait_until
from loopback import MODEL

from rlm import RLM, ConfigError, ScriptedLM
from rlm_kernel.cli import main
from rlm_kernel.kernel import connection_files, watch
from rlm_kernel.kernel.inspector import KernelInspector
from rlm_kernel.provisioners.zmq_context import zmq_context
from rlm_kernel.trajectory.events import CellFinished, CellStarted, RunFinished

FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\n"
HOLD = "import time, os\nwhile not os.path.exists({!r}): time.sleep(0.01)\n"


def cell(code):
    return f"```repl\n{code}\n```"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where live REPLs are listed."""
    path = tmp_path / "repls"
    monkeypatch.setenv(connection_files.VARIABLE, str(path))
    return path


async def looked_into(look, before="", after="", attachable=True, gate=None):
    """A run whose second cell waits until `look()` is done: the results of its cells, what was seen, the answer."""
    lm = ScriptedLM([cell("mine = [1, 2, 3]"), cell(before + HOLD.format(str(gate)) + after), cell("FINAL(mine)")])
    with RLM(lm, environment_kwargs={"attachable": attachable}) as rlm:
        cells, seen, answer = [], None, None
        async for event in rlm.stream("a context", "What?"):
            if isinstance(event, CellStarted) and event.cell == 2:
                try:
                    seen = await asyncio.to_thread(look)
                finally:
                    gate.touch()
            elif isinstance(event, CellFinished):
                cells.append(event.result)
            elif isinstance(event, RunFinished):
                answer = event.completion.response
        return cells, seen, answer


async def test_looking_often_does_not_pass_for_the_end_of_the_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "CHECK_SECONDS", 0.05)

    def look():
        with KernelInspector(connection_files.find_live(None).file) as inspector:
            return [inspector.read("__import__('time').sleep(0.02)") for _ in range(20)]

    cells, seen, answer = await looked_into(look, gate=tmp_path / "gate")
    assert ([cell.status for cell in cells], len(seen), answer) == (["ok"] * 3, 20, "[1, 2, 3]")
    assert "put back" not in "".join(cell.stderr for cell in cells)


async def test_what_is_there_is_read_while_a_cell_runs(tmp_path):
    def look():
        with KernelInspector(connection_files.find_live(None).file) as inspector:
            reads = ["context", "len(mine)", "mine[5]", "1 +", "__import__('time').sleep(0) or mine"]
            return [inspector._subshell is None, inspector.variables(), *map(inspector.read, reads)]

    _, seen, answer = await looked_into(look, gate=tmp_path / "gate")
    waits, variables, context, length, raised, wrong, value = seen
    assert waits is False
    assert "'mine': 'list'" in variables
    assert (context, length, value) == ("'a context'", "3", "[1, 2, 3]")
    assert raised == "IndexError: list index out of range"
    assert wrong.startswith("SyntaxError")
    assert answer == "[1, 2, 3]"


async def test_looking_disturbs_nothing(tmp_path):
    def look():
        with KernelInspector(connection_files.find_live(None).file) as inspector:
            return [inspector.read("len(context)") for _ in range(20)]

    ends = "plt.title('mine')\nplt.show()\n'the value'"
    undisturbed, _, _ = await looked_into(lambda: None, FIGURE, ends, gate=tmp_path / "one")
    cells, seen, _ = await looked_into(look, FIGURE, ends, gate=tmp_path / "two")
    assert set(seen) == {"9"}
    assert [c.execution_count for c in cells] == [c.execution_count for c in undisturbed] == [1, 2, 3]
    assert [o["output_type"] for o in cells[1].outputs] == [o["output_type"] for o in undisturbed[1].outputs]
    assert "image/png" in str([o.get("data", {}).keys() for o in cells[1].outputs])
    assert cells[1].value == "'the value'"
    assert [c.report for c in cells] == [c.report for c in undisturbed]


async def test_a_cell_of_somebody_who_takes_part_is_none_of_the_runs(tmp_path):
    def look():
        client = KernelClient(context=zmq_context(), connection_file=str(connection_files.find_live(None).file))
        client.load_connection_file()
        shell = client.connect_shell()
        for _ in range(5):
            code = "FINAL('not yours'); answer['content'] = 'mine'; print('hello')"
            client.session.send(shell, "execute_request", {"code": code, "silent": False, "store_history": True})
        return shell

    cells, shell, answer = await looked_into(look, gate=tmp_path / "gate")
    shell.close(0)
    assert answer == "[1, 2, 3]"
    assert [c.stdout for c in cells] == ["", "", ""]
    assert cells[1].report.final is None


async def test_a_repl_is_listed_only_when_it_is_asked_for(tmp_path, folder):
    _, seen, _ = await looked_into(folder.exists, attachable=False, gate=tmp_path / "gate")
    assert seen is False


async def test_the_list_is_private_and_empty_afterwards(tmp_path, folder):
    def look():
        (file,) = folder.iterdir()
        return [stat.S_IMODE(path.stat().st_mode) for path in (folder, file)], json.loads(file.read_text())

    _, (modes, connection), _ = await looked_into(look, gate=tmp_path / "gate")
    assert modes == [0o700, 0o600]
    assert connection["kernel_name"].startswith("rlm local-")
    assert connection["transport"] == "ipc"
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_can_read_is_refused(folder):
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="must be yours alone.*chmod 700"):
        connection_files.folder()


def test_a_killed_process_leaves_nothing_on_the_list(folder):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder.mkdir(mode=0o700)
    about = {"rlm": {"pid": ended.pid, "environment": "local", "started": "12:00:00"}}
    (folder / "local-abc.json").write_text(json.dumps(about))
    assert connection_files.list_live() == []
    assert list(folder.iterdir()) == []


def test_files_of_others_are_not_on_the_list_and_stay(folder):
    folder.mkdir(mode=0o700)
    for name, text in {"kernel-1": json.dumps({"ip": "127.0.0.1"}), "half": '{"rlm', "number": "5"}.items():
        (folder / f"{name}.json").write_text(text)
    (folder / "gone.json").symlink_to(folder / "nowhere")  # as one that is taken off at this moment
    with pytest.warns(UserWarning, match="is left out"):
        assert connection_files.list_live() == []
    assert len(list(folder.iterdir())) == 4


def test_who_looks_in_can_go_after_the_kernel_has_ended():
    with RLM(
        ScriptedLM([cell("1"), cell("FINAL(2)")]), environment_kwargs={"attachable": True}, persistent=True
    ) as rlm:
        rlm.completion("a context", "What?")
        inspector = KernelInspector(connection_files.find_live(None).file)
    inspector.close()
    assert [inspector._shell.closed, inspector._control.closed] == [True, True]


async def test_the_command_shows_values_and_names_what_is_there(tmp_path, capsys, folder):
    def look():
        name = connection_files.find_live(None).name
        codes = [
            main(["attach", "-e", "len(context)", "-e", "mine"]),
            main(["attach", "--list"]),
            main(["attach", "--folder"]),
            main(["attach", name[:8], "-e", "1"]),
            main(["attach", "nobody", "-e", "1"]),
            main(["attach", "-e", "nope", "-e", "1"]),
        ]
        return codes, name

    _, (codes, name), _ = await looked_into(look, gate=tmp_path / "gate")
    assert codes == [0, 0, 0, 0, 2, 1]
    said = capsys.readouterr()
    assert said.out.splitlines()[:2] == ["9", "[1, 2, 3]"]
    assert f"{name}\tlocal\t" in said.out
    assert str(folder) in said.out
    assert f"There is no live REPL 'nobody'. There are {name}." in said.err
    assert "NameError: name 'nope' is not defined" in said.err


async def test_the_console_reads_lines_until_their_end(tmp_path):
    def look():
        command = [sys.executable, "-m", "rlm_kernel.cli", "attach"]
        return subprocess.run(command, input="len(context)\n\nvars\n", capture_output=True, text=True, check=True)

    _, done, _ = await looked_into(look, gate=tmp_path / "gate")
    assert done.stdout == "9\n{'mine': 'list', 'time': 'module'}\n" or done.stdout.startswith("9\n{'mine': 'list'")
    assert "Ctrl-D to leave" in done.stderr


def test_the_command_line_lets_others_look_in(provider, tmp_path, folder):
    gate = tmp_path / "gate"
    provider.script = [cell("mine = [1, 2, 3]\n" + HOLD.format(str(gate))), "FINAL(42)"]
    command = [sys.executable, "-m", "rlm_kernel.cli", "run", "q", "--model", MODEL, "--attachable", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **provider.environment}) as run:
        wait_until(lambda: folder.is_dir() and connection_files.list_live())
        with KernelInspector(connection_files.find_live(None).file) as inspector:
            wait_until(lambda: inspector.read("mine") == "[1, 2, 3]")
        gate.touch()
        assert run.stdout.read() == b"42\n"


def test_nothing_to_look_into_names_the_ways(capsys):
    assert main(["attach"]) == 2
    assert "`rlm run --attachable`" in capsys.readouterr().err


def test_the_option_is_true_or_false():
    with pytest.raises(ConfigError, match="must be True or False, not int"):
        RLM(ScriptedLM([]), environment_kwargs={"attachable": 1})
    with pytest.raises(ConfigError, match="must be a number of kernels, not bool"):
        RLM(ScriptedLM([]), environment_kwargs={"pool": True})


@pytest.mark.timeout(200)
async def test_live_repls_are_listed_as_external_kernels(tmp_path):
    options = [
        "--ServerApp.allow_external_kernels=True",
        f"--ServerApp.external_connection_dir={connection_files.folder()}",
    ]
    with lab(tmp_path, *options) as address:
        lm = ScriptedLM(["```repl\nmine = 7\n```", "FINAL(1)"], delay=0.2)
        with RLM(lm, environment_kwargs={"attachable": True}) as rlm:
            async for event in rlm.stream("a context", "What?"):
                if isinstance(event, CellFinished):
                    listed = await asyncio.to_thread(kernels, address)
                    name = connection_files.find_live(None).name
    assert [kernel["name"] for kernel in listed] == [f"rlm {name}"]


def kernels(address):
    """What JupyterLab shows as running."""
    with urlopen(address.format("").split("/lab/")[0] + "/api/kernels?token=x") as reply:
        return json.load(reply)
