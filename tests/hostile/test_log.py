"""A stranger's record: what it opens of this machine is refused, and nobody else's line passes for one's own."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import papermill
import pytest
from hostile import strangers
from recorded_runs import code, record

from rlm import RLM, RecordingError, ScriptedLM
from rlm_kernel.reach import Use, admitted
from rlm_kernel.replays.export import clean
from rlm_kernel.replays.replay import replay
from rlm_kernel.replays.scene import environment_of
from rlm_kernel.trajectory.log import signature
from rlm_kernel.trajectory.log.recording import read


@pytest.fixture
def run(tmp_path):
    return strangers.recorded(tmp_path / "logs")


@pytest.fixture
def another_user(monkeypatch, tmp_path):
    """From here on somebody else reads what was written."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "another user"))


def nobody_is_asked(question):
    pytest.fail(f"asked: {question}")


# -- whose it is


def test_ones_own_record_is_used_without_a_question(run):
    assert read(run.log).flaw is None
    assert replay(run.notebook, trust=nobody_is_asked).equal
    assert RLM.resume(run.log, backend=ScriptedLM([]), trust=nobody_is_asked).response == "done"
    assert clean(run.log, trust=nobody_is_asked).kept == (1,)


def test_the_record_of_another_user_does_not_run_on_this_machine(run, another_user, tmp_path):
    uses = (
        lambda: replay(run.log),
        lambda: replay(run.notebook),
        lambda: replay(read(run.log)),
        lambda: clean(run.log),
        lambda: RLM.resume(run.log, backend=ScriptedLM([])),
        lambda: papermill.execute_notebook(run.notebook, tmp_path / "out.ipynb", engine_name="rlm", progress_bar=False),
    )
    for use in uses:
        with pytest.raises(RecordingError, match=r"without a wall.* not signed with your key.*--trust.*--environment"):
            use()
    assert not strangers.ran(run.log.parent)
    assert replay(run.log, trust=True).equal
    assert strangers.ran(run.log.parent)


def test_who_is_asked_sees_what_it_would_use_and_decides(run, another_user):
    asked = []
    with pytest.raises(RecordingError, match="without a wall"):
        replay(run.log, trust=asked.append)
    assert not strangers.ran(run.log.parent)
    assert replay(run.log, trust=lambda question: asked.append(question) or True).equal
    assert len(asked) == 2
    assert "environment: 'local' (its code runs on this machine as you, without a wall)" in asked[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines, _: [lines[0].replace(b'"depth":0', b'"depth":1'), *lines[1:]],
        lambda lines, _: [re.sub(rb'"mac":"\w{8}', b'"mac":"00000000', line) for line in lines],
        lambda lines, _: [re.sub(rb',"mac":"\w{64}"', b"", line) for line in lines],
        lambda lines, _: [*lines[:2], *lines[3:]],
        lambda lines, _: [*lines[:2], lines[3], lines[2], *lines[4:]],
        lambda lines, _: [*lines[:3], lines[2], *lines[3:]],
        lambda lines, other: [*lines[:-1], other[-1]],
        lambda lines, other: [*lines, *other],
        lambda lines, _: [*lines, b'{"type":"notice","time":1,"message":"x"}\n'],
        lambda lines, _: [*lines, b'{"type":"notice","time":1,"message":"x"}'],
        lambda lines, _: [line.replace(b',"mac"', b', "mac"') for line in lines],
    ],
    ids=[
        "edited",
        "forged",
        "stripped",
        "left out",
        "swapped",
        "twice",
        "spliced",
        "joined",
        "added",
        "open",
        "spaced",
    ],
)
def test_a_line_that_this_user_did_not_write_there_is_found(run, tmp_path, change):
    other = strangers.recorded(tmp_path / "other")
    run.log.write_bytes(b"".join(change(strangers.lines(run.log), strangers.lines(other.log))))
    assert read(run.log).flaw is not None
    with pytest.raises(RecordingError, match="without a wall"):
        replay(run.log)
    assert not strangers.ran(run.log.parent)


def test_a_log_that_was_cut_is_signed_as_far_as_it_goes(run):
    whole = run.log.read_bytes()
    for size in range(len(strangers.lines(run.log)[0]), len(whole), 97):
        run.log.write_bytes(whole[:size])
        assert read(run.log).flaw is None


def test_a_run_that_was_killed_is_ones_own(tmp_path):
    program = """
import sys
from rlm import RLM, ScriptedLM
from rlm.logger import RLMLogger
cells = ["x = 1; print(x)", "import time; time.sleep(600)"]
RLM(ScriptedLM([f"```repl\\n{cell}\\n```" for cell in cells]), logger=RLMLogger(sys.argv[1])).completion("c", "q")
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    while not (logs := list(tmp_path.glob("*.jsonl"))) or b"sleep(600)" not in logs[0].read_bytes():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read(logs[0]).flaw is None
    assert replay(logs[0], trust=nobody_is_asked).results[1].stdout == "1\n"


def test_a_cell_that_was_put_into_a_notebook_does_not_run_because_its_log_is_ones_own(run):
    evil = run.edit("touch()", "write_text('evil')")
    with pytest.raises(RecordingError, match=r"without a wall.*cell 1 was edited.*--trust"):
        replay(evil)
    assert not strangers.ran(run.log.parent)
    assert replay(evil, trust=True).results


def test_the_key_is_for_its_owner_alone(run):
    path = Path(os.environ["JUPYTER_DATA_DIR"], signature.KEY_FILE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == signature.key()


@pytest.mark.parametrize("harm", ["others may read it", "it is a link", "it is empty", "it is a pipe"])
def test_a_key_that_is_not_safe_signs_nothing_which_is_told_once(tmp_path, monkeypatch, harm):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    signature.key()
    path = tmp_path / "data" / signature.KEY_FILE
    if harm == "others may read it":
        path.chmod(0o644)
    else:
        path.rename(tmp_path / "moved")
        {"it is a link": lambda: path.symlink_to(tmp_path / "moved"), "it is empty": path.touch}.get(
            harm, lambda: os.mkfifo(path, 0o600)
        )()
    path.chmod(0o600) if harm == "it is empty" else None
    with pytest.warns(RuntimeWarning, match="is not signed") as told:
        run = record(tmp_path / "logs", [code("FINAL(1)")])
    assert len(told) == 1
    assert "your key cannot be read" in read(run.log).flaw


def test_a_record_of_a_stranger_can_be_made_ones_own(run, another_user):
    done = subprocess.run(
        [sys.executable, "-m", "rlm_kernel.cli", "trust", str(run.log)], capture_output=True, text=True, check=True
    )
    assert "environment: 'local'" in done.stderr
    assert replay(run.log, trust=nobody_is_asked).equal


# -- what it opens

OPENED = {
    "mounts": {"/": "/host:rw"},
    "network": True,
    "gpus": "all",
    "env": {"LD_PRELOAD": "/x.so"},
    "transport": "relay",
    "packages": ["evil"],
    "memory": "64g",
    "cpus": 64.0,
    "pool": 50,
    "attachable": True,
}


@pytest.mark.parametrize("option", OPENED)
def test_what_a_stranger_s_record_opens_is_left_out_and_named(run, option):
    log = strangers.with_options(run.log, "docker", {option: OPENED[option], "cell_timeout": 5})
    with pytest.warns(RuntimeWarning, match=rf"environment_kwargs\['{option}'\].*--trust"):
        used = admitted(read(log), Use())
    assert used.metadata["environment_kwargs"] == {"cell_timeout": 5}
    assert used.metadata["configuration"]["environment_kwargs"] == {"cell_timeout": 5}
    assert environment_of(used).options == {}
    kept = admitted(read(log), Use(), trust=True)
    assert kept.metadata["environment_kwargs"].keys() == {option, "cell_timeout"}


def test_an_option_that_opens_nothing_is_kept_without_a_word(run):
    narrow = {"memory": "1g", "cpus": 0.5, "network": "none", "cell_timeout": 5}
    log = strangers.with_options(run.log, "docker", narrow)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert admitted(read(log), Use()).metadata["environment_kwargs"] == narrow


def test_a_run_does_not_go_on_in_another_image_than_its_own_unasked(run):
    log = strangers.with_options(run.log, "docker", {"image": "registry.example/evil"})
    with pytest.raises(RecordingError, match=r"'image'\]: 'registry.example/evil'.*--trust.*--environment docker"):
        replay(log)


@pytest.mark.parametrize("environment", ["local", "modal"])
def test_a_place_without_a_wall_or_at_somebody_s_cost_is_not_used_unasked(run, environment):
    log = strangers.with_options(run.log, environment, {})
    with pytest.raises(RecordingError, match=rf"environment: '{environment}'"):
        replay(log)


def test_a_record_from_a_container_does_not_run_without_one_unasked(run):
    log = strangers.with_options(run.log, "docker", {})
    for use in (lambda: replay(log, environment="local"), lambda: clean(log, environment="local")):
        with pytest.raises(RecordingError, match="without a wall"):
            use()
    with pytest.raises(RecordingError, match="without a wall"):
        RLM.resume(log, backend=ScriptedLM([]), environment="local")
    assert not strangers.ran(run.log.parent)


def test_a_stranger_s_record_names_no_server_and_no_option_of_a_client(run):
    first, *rest = strangers.lines(run.log)
    about = json.loads(first)
    about["configuration"] |= {
        "backend": "openai",
        "backend_kwargs": {"model_name": "m", "base_url": "http://127.0.0.1:9/v1", "default_headers": {"x": "y"}},
        "sampling_args": {"temperature": 0, "api_base": "http://127.0.0.1:9"},
    }
    run.log.write_bytes(b"".join([json.dumps(about).encode() + b"\n", *rest]))
    log = strangers.with_options(run.log, "docker", {})
    with pytest.warns(RuntimeWarning, match="base_url.*default_headers.*api_base"):
        used = admitted(read(log), Use(models=True))
    assert used.metadata["configuration"]["backend_kwargs"] == {"model_name": "m"}
    assert used.metadata["configuration"]["sampling_args"] == {"temperature": 0}


def test_nothing_of_this_machine_is_in_the_container_of_a_stranger_s_record(docker_engine, tmp_path):
    seen = [
        code("import os", "print(os.path.exists('/host'), os.listdir('/sys/class/net'), 'MINE' in os.environ)"),
        code("FINAL('done')"),
    ]
    run = record(tmp_path / "logs", seen, environment="docker")
    opened = {"mounts": {"/": "/host:rw"}, "network": True, "env": {"MINE": "1"}}
    log = strangers.with_options(run.log, "docker", opened)
    mounts, networks = [], []

    def look(*_):
        for container in docker_engine.containers():
            about = docker_engine.inspect_container(container["Id"])
            if any(mount["Destination"] == "/host" for mount in about["Mounts"]):
                mounts.append(about["Mounts"])
            networks.append(about["HostConfig"]["NetworkMode"])

    with pytest.warns(RuntimeWarning, match=r"mounts.*network.*env"):
        report = replay(log, on_step=look)
    assert report.results[1].stdout == "False ['lo'] False\n"
    assert mounts == []
    assert "none" in networks


def test_a_terminal_asks_once_and_no_is_the_usual_answer(run, another_user, tmp_path):
    for answer, code_ in ((b"\n", 2), (b"y\n", 0)):
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "rlm_kernel.cli", "replay", "--quiet", str(run.log)]
        process = subprocess.Popen(command, stdin=slave, stderr=slave, stdout=subprocess.PIPE)
        os.close(slave)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(master, 4096)
        os.write(master, answer)
        process.communicate()
        os.close(master)
        assert shown.count(b"[y/N]") == 1
        assert process.returncode == code_
        assert strangers.ran(run.log.parent) is (code_ == 0)
