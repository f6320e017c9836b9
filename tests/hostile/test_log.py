"""What a stranger's record, a log or a notebook, does to the user who goes on from it."""

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
import tracemalloc
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path

import nbformat
import papermill
import pytest
from hostile import strangers
from hostile.keys_on_loopback import INPUT, KEY, Listener, each_backend, model_of
from recorded_runs import code, record, record_file

from rlm import RLM, RecordingError, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.cli import main
from rlm_kernel.clients.backends import BACKENDS
from rlm_kernel.clients.trust import Source
from rlm_kernel.engine.argument_checks import models_of
from rlm_kernel.engine.record_access import Use, admitted
from rlm_kernel.engine.recorded_config import arguments_of
from rlm_kernel.errors import ConfigError
from rlm_kernel.papermill import parameters as notebook_parameters
from rlm_kernel.replay.minimise import clean
from rlm_kernel.replay.replayer import replay
from rlm_kernel.replay.setup import environment_of
from rlm_kernel.trajectory.log import context_store, prompt_store, reader, signature
from rlm_kernel.trajectory.log.file_names import TURNS, file_beside
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.viewer.folder import folder_of


@pytest.fixture
def thief():
    with Listener() as listener:
        yield listener


@pytest.fixture(scope="module")
def honest_log(tmp_path_factory):
    """The lines of a run without a turn."""
    logger = RLMLogger(tmp_path_factory.mktemp("logs"))
    RLM(ScriptedLM(["FINAL(1)", "FINAL(1)"]), logger=logger).completion(INPUT, "q")
    with record_file(logger).open(encoding="utf-8") as file:
        return file.read().splitlines()


@pytest.fixture
def forged(honest_log, tmp_path, monkeypatch):
    """Makes a log with this configuration; the environment holds a key for every backend."""
    for row in BACKENDS.values():
        if row.key_variable:
            monkeypatch.setenv(row.key_variable, KEY)

    def make(**configuration):
        first = json.loads(honest_log[0])
        first["configuration"] |= configuration
        for name in ("backend", "backend_kwargs"):
            first[name] = first["configuration"][name]
        path = tmp_path / "rlm_stranger.jsonl"
        path.write_text("\n".join([json.dumps(first), *honest_log[1:]]) + "\n")
        return path

    return make


def resumed_models(log, source=Source.RECORD, **overrides):
    """The models of an RLM that goes on from a log, as `RLM` makes them."""
    arguments = arguments_of(read_log(log), overrides, RLM, source)
    return models_of(
        [arguments["backend"], *(arguments.get("other_backends") or ())],
        [arguments.get("backend_kwargs"), *(arguments.get("other_backend_kwargs") or ())],
        arguments.get("sampling_args"),
        arguments.get("sub_sampling_args"),
    )[0]


@each_backend
def test_a_loopback_server_of_a_log_gets_no_key(row, forged, thief):
    log = forged(backend=row.name, backend_kwargs={"model_name": model_of(row), "base_url": thief.url})
    if row.name == "ollama":  # it has no key
        assert resumed_models(log).root.adapter.base_url == thief.url
    else:
        with pytest.raises(ConfigError) as refused:
            resumed_models(log)
        assert f"base_url in {log.name} names the server {thief.url}, which would get " in str(refused.value)
        assert "If you trust it, give base_url yourself" in str(refused.value)
        assert KEY not in str(refused.value)
    assert resumed_models(log, Source.ARGUMENT).root.model == model_of(row)
    assert thief.seen == []


@pytest.mark.parametrize("name", ["other_backend_kwargs", "sampling_args", "sub_sampling_args"])
def test_no_other_argument_of_a_log_names_a_server_for_a_key(name, forged, thief):
    value = {"model_name": "m", "base_url": thief.url}
    more = {name: [value], "other_backends": ["openai"]} if name.startswith("other") else {name: value}
    log = forged(backend="openai", backend_kwargs={"model_name": "m"}, **more)
    with pytest.raises(ConfigError, match="which would get|decides who gets"):
        resumed_models(log)


def test_resume_and_live_replay_ask_no_server_of_a_log(forged, thief):
    log = forged(backend="openai", backend_kwargs={"model_name": "m", "base_url": thief.url})
    with pytest.raises(ConfigError, match="OPENAI_API_KEY in the environment"):
        RLM.resume(log, trust=True)
    for trust in [], ["--trust"]:
        assert main(["resume", str(log), "--quiet", *trust]) == 2
        assert main(["replay", str(log), "--live", *trust]) == 2
    assert thief.seen == []
    # The server of the log is not taken over where the model is.
    with pytest.raises(ConfigError, match="needs 'base_url'"):
        resumed_models(log, backend="vllm", backend_kwargs={"model_name": "m"})


@pytest.mark.parametrize(
    "kwargs",
    [
        {"aws_region_name": "example.com/?"},
        {"vertex_location": "example.com/"},
        {"extra_headers": {"x": "y"}},
        {"fallbacks": ["huggingface/x"]},
        {"model_name": "bedrock/arn:aws:bedrock:example.com/x:1:y"},
        {"model_name": "openai/../../x"},
        {"sampling_args": {"api_base": "http://127.0.0.1:1"}},
        {"sampling_args": {"mock": 1}},
    ],
    ids=str,
)
def test_no_option_of_a_log_chooses_where_litellm_sends_a_key(kwargs, forged, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: ModuleSpec(name, None, origin="here"))
    log = forged(backend="litellm", backend_kwargs={"model_name": "openai/m", **kwargs})
    with pytest.raises(ConfigError, match="which would get a key that litellm finds|decides who gets a key"):
        resumed_models(log)
    plain = {"model_name": "openai/m", "timeout": 9, "sampling_args": {"temperature": 0}}
    assert resumed_models(forged(backend="litellm", backend_kwargs=plain)).root.model == "openai/m"


@pytest.mark.parametrize("where", [["huggingface/https://example.com"], {"https://example.com": 1}, {"host": "a.com"}])
def test_an_address_is_found_wherever_it_stands_in_a_log(where, forged):
    log = forged(backend="litellm", backend_kwargs={"model_name": "openai/m", "fallbacks": where})
    with pytest.raises(RecordingError, match="names the server"):
        resumed_models(log)


@pytest.mark.parametrize("name", ["provider", "config", "custom_host", "virtual_key", "Authorization"])
def test_no_option_of_a_log_chooses_where_a_gateway_sends_a_key(name, forged):
    value = "http://127.0.0.1:1" if name == "custom_host" else "stranger"
    log = forged(backend="portkey", backend_kwargs={"model_name": "@openai/m", name: value})
    with pytest.raises(ConfigError, match=f"{name} in rlm_stranger"):
        resumed_models(log)


def test_a_key_of_a_log_is_not_used(forged, thief):
    """The input would go to the account of a stranger."""
    kwargs = {"model_name": "m", "api_key": "sk-of-the-stranger", "base_url": thief.url}
    with pytest.raises(ConfigError, match=r"api_key in rlm_stranger.jsonl is not used"):
        resumed_models(forged(backend="openai", backend_kwargs=kwargs))


def test_arguments_given_again_are_the_users(forged, thief):
    log = forged(backend="openai", backend_kwargs={"model_name": "m", "base_url": "http://127.0.0.1:1/v1"})
    models = resumed_models(log, backend_kwargs={"model_name": "m", "base_url": thief.url})
    assert (models.root.adapter.base_url, models.root.api_key) == (thief.url, KEY)


# -- notebooks


def notebook_of(folder, **metadata):
    cells = [nbformat.v4.new_code_cell("llm_query('x')")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata |= {"kernelspec": {"name": "rlm-local", "display_name": "x", "language": "python"}, **metadata}
    nbformat.write(notebook, folder / "asks.ipynb")
    return folder / "asks.ipynb"


def test_a_loopback_server_of_a_notebook_gets_no_key(tmp_path, thief, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    named = {"backend": "openai", "model": "m", "base_url": thief.url}
    parameters = {"parameters": named, "default_parameters": {}, "environment_variables": {}}
    for metadata in ({"rlm": named}, {"papermill": parameters}):
        path = notebook_of(tmp_path, **metadata)
        with pytest.raises(ConfigError, match="base_url in the notebook names the server"):
            papermill.execute_notebook(path, tmp_path / "out.ipynb", engine_name="rlm", progress_bar=False)
    assert thief.seen == []


def test_only_what_papermill_is_given_now_is_the_users():
    named = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "backend_kwargs": {"timeout": 9}}
    arguments = notebook_parameters.arguments_of(named, {"max_budget": 1}, {}, {"base_url": named["base_url"]})
    sources = {name: setting.source for name, setting in arguments["backend_kwargs"].items()}
    assert sources == {"model_name": Source.RECORD, "base_url": Source.ARGUMENT, "timeout": Source.RECORD}
    assert arguments["max_budget"] == 1


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
    assert read_log(run.log).flaw is None
    assert replay(run.notebook, trust=nobody_is_asked).equal
    assert RLM.resume(run.log, backend=ScriptedLM([]), trust=nobody_is_asked).response == "done"
    assert clean(run.log, trust=nobody_is_asked).kept == (1,)


def test_the_record_of_another_user_does_not_run_on_this_machine(run, another_user, tmp_path):
    uses = (
        lambda: replay(run.log),
        lambda: replay(run.notebook),
        lambda: replay(read_log(run.log)),
        lambda: replay(file_beside(run.log, TURNS)),
        lambda: RLM.resume(file_beside(run.log, TURNS), backend=ScriptedLM([])),
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
    assert read_log(run.log).flaw is not None
    with pytest.raises(RecordingError, match="without a wall"):
        replay(run.log)
    assert not strangers.ran(run.log.parent)


def test_a_log_that_was_cut_is_signed_as_far_as_it_goes(run):
    whole = run.log.read_bytes()
    for size in range(len(strangers.lines(run.log)[0]), len(whole), 97):
        run.log.write_bytes(whole[:size])
        assert read_log(run.log).flaw is None


def test_a_run_that_was_killed_is_ones_own(tmp_path):
    program = """
import sys
from rlm import RLM, ScriptedLM
from rlm.logger import RLMLogger
cells = ["x = 1; print(x)", "import time; time.sleep(600)"]
RLM(ScriptedLM([f"```repl\\n{cell}\\n```" for cell in cells]), logger=RLMLogger(sys.argv[1])).completion("c", "q")
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    while not (logs := list(tmp_path.glob("*.events.jsonl"))) or b"sleep(600)" not in logs[0].read_bytes():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_log(logs[0]).flaw is None
    turns = file_beside(logs[0], TURNS).read_text().splitlines()
    assert [json.loads(line)["type"] for line in turns] == ["metadata", "iteration"]
    assert replay(logs[0], trust=nobody_is_asked).results[1].stdout == "1\n"


def test_what_was_written_into_the_turns_is_not_used_because_they_are_not_the_record(run):
    turns = file_beside(run.log, TURNS)
    turns.write_text(turns.read_text().replace("touch()", "write_text('evil')"))
    assert read_log(turns).path == run.log
    assert replay(turns, trust=nobody_is_asked).equal
    assert (run.log.parent / strangers.WITNESS).read_text() == ""


def test_a_record_that_leads_out_of_the_folder_is_not_shown(run, tmp_path):
    secret = tmp_path / "secret.jsonl"
    run.log.rename(secret)
    run.log.symlink_to(secret)
    folder = folder_of(str(file_beside(run.log, TURNS)))
    assert (folder.path, folder.logs()) == (run.log.parent, [])


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
    assert "your key cannot be read" in read_log(run.log).flaw


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
        used = admitted(read_log(log), Use())
    assert used.metadata["environment_kwargs"] == {"cell_timeout": 5}
    assert used.metadata["configuration"]["environment_kwargs"] == {"cell_timeout": 5}
    assert environment_of(used).options == {}
    kept = admitted(read_log(log), Use(), trust=True)
    assert kept.metadata["environment_kwargs"].keys() == {option, "cell_timeout"}


def test_an_option_that_opens_nothing_is_kept_without_a_word(run):
    narrow = {"memory": "1g", "cpus": 0.5, "network": "none", "cell_timeout": 5}
    log = strangers.with_options(run.log, "docker", narrow)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert admitted(read_log(log), Use()).metadata["environment_kwargs"] == narrow


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
        used = admitted(read_log(log), Use(models=True))
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


# -- its files may be anything


def test_a_file_beside_a_log_that_no_run_can_have_written_is_not_read(tmp_path):
    name = f"{prompt_store.FOLDER}/{'0' * 64}.txt"
    (tmp_path / prompt_store.FOLDER).mkdir()
    with (tmp_path / name).open("wb") as file:
        file.truncate(500_000_000)
    line = {"prompts": ["as far as it is shown"], "stored": {"0": name}}
    tracemalloc.start()
    prompt_store.restore(line, tmp_path, {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert line["prompts"] == ["as far as it is shown"]
    assert peak < 100_000_000


def test_an_input_that_is_exchanged_for_a_pipe_is_not_waited_for(tmp_path, monkeypatch):
    stored = context_store.store("x" * 30_000, tmp_path)
    (tmp_path / stored.file).unlink()
    os.mkfifo(tmp_path / stored.file)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: os.stat_result((0o100600, 0, 0, 1, 0, 0, stored.size, 0, 0, 0)))
    with pytest.raises(RecordingError, match="was altered"):
        context_store.load(stored, tmp_path)


def test_a_line_of_a_log_without_an_end_is_refused(run, monkeypatch):
    monkeypatch.setattr(reader, "_MAX_LINE", 100)
    with pytest.raises(RecordingError, match="line 1 has more than 100 bytes"):
        read_log(run.log)
