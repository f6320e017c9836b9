"""Logs and notebooks of strangers: they reach no file, no key and no loop, and what is wrong with them is named."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path

import nbformat
import papermill
import pytest
from recorded_runs import notebook_beside, record_file
from trajectory import runs
from trajectory.comparison import notebooks_of

from rlm import RLM, ConfigError, RecordingError, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.clients.trust import Source
from rlm_kernel.engine.journal import RecordedResponder
from rlm_kernel.engine.recorded_config import arguments_of
from rlm_kernel.papermill import parameters as notebook_parameters
from rlm_kernel.replay.minimise import clean
from rlm_kernel.replay.replayer import replay
from rlm_kernel.replay.responder import UnrecordedResponder, answers_of
from rlm_kernel.replay.setup import environment_of
from rlm_kernel.trajectory.log import reader
from rlm_kernel.trajectory.notebook.build import identity_of_recording
from rlm_kernel.types import Query


@pytest.fixture
def log(tmp_path):
    logger = RLMLogger(tmp_path)
    script = [runs.cell("a = llm_query('x')"), "an answer", "FINAL_VAR(a)"]
    RLM(ScriptedLM(script), logger=logger).completion("c" * 50_000, "q")
    return record_file(logger)


def forge(log, change):
    """Change the lines of a log: `change` gets each with its type."""
    known = [json.loads(line) for line in log.read_text().splitlines()]
    for line in known:
        change(line["type"], line)
    log.write_text("".join(f"{json.dumps(line)}\n" for line in known))


def again(log, **overrides):
    """Go on from a log that was forged: what is wrong with it is named even to who trusts it."""
    return RLM.resume(log, **{"backend": ScriptedLM([]), "trust": True, **overrides})


def replayed(log, **arguments):
    return replay(log, trust=True, **arguments)


@pytest.mark.parametrize("file", ["/dev/zero", "../secret.txt", "contexts/../../secret.txt"])
def test_a_context_is_read_from_its_folder_only(log, tmp_path, file):
    secret = b"the content of another file"
    (tmp_path.parent / "secret.txt").write_bytes(secret)

    def change(kind, line):
        if kind == "context":
            line |= {"file": file, "sha256": hashlib.sha256(secret).hexdigest(), "size": len(secret)}

    forge(log, change)
    for use in (again, replayed):
        with pytest.raises(RecordingError, match="context"):
            use(log)


def test_a_context_that_became_endless_is_not_read(log):
    (stored,) = (log.parent / "contexts").iterdir()
    stored.unlink()
    stored.symlink_to("/dev/zero")
    with pytest.raises(RecordingError, match="altered"):
        again(log)


@pytest.mark.parametrize("name", ["backend_kwargs", "sampling_args", "sub_sampling_args", "other_backend_kwargs"])
@pytest.mark.parametrize("field", ["base_url", "api_base", "endpoint", "aws_bedrock_runtime_endpoint"])
def test_no_argument_of_a_log_can_have_a_key_sent_elsewhere(log, name, field):
    value = {"model_name": "m", "nested": {field: "https://example.com/v1"}}

    def change(kind, line):
        if kind == "metadata":
            line["configuration"] |= {"backend": "litellm", "backend_kwargs": {"model_name": "m"}}
            line["configuration"][name] = [value] if name.startswith("other") else value

    forge(log, change)
    with pytest.raises(RecordingError, match=rf"names the server https://example.com/v1.*give {name} again"):
        RLM.resume(log, trust=True)


def test_who_names_the_environment_says_what_it_may_reach(log):
    kwargs = {"mounts": {"/": "/host"}, "network": True}

    def change(kind, line):
        if kind == "metadata":
            line |= {"environment": "docker", "environment_kwargs": kwargs}
            line["configuration"] |= {"environment": "docker", "environment_kwargs": kwargs}

    forge(log, change)
    known = reader.read_log(log)
    assert environment_of(known).options.keys() >= kwargs.keys()
    assert not environment_of(known, "docker").options.keys() & kwargs.keys()
    given = {"backend": ScriptedLM([]), "environment": "docker"}
    assert "environment_kwargs" not in arguments_of(known, given, RLM)


def test_who_names_other_backends_gives_their_arguments_too(log):
    def change(kind, line):
        if kind == "metadata":
            line["configuration"] |= {"other_backends": ["vllm"], "other_backend_kwargs": [{"model_name": "m"}]}

    forge(log, change)
    known = reader.read_log(log)
    given = {"backend": ScriptedLM([])}
    (kwargs,) = arguments_of(known, given, RLM)["other_backend_kwargs"]
    assert {name: (setting.value, setting.source) for name, setting in kwargs.items()} == {
        "model_name": ("m", Source.RECORD)
    }
    assert "other_backend_kwargs" not in arguments_of(known, {**given, "other_backends": [ScriptedLM([])]}, RLM)


def test_arguments_of_a_later_version_are_named(log):
    def change(kind, line):
        if kind == "metadata":
            line["configuration"] |= {"max_wonders": 3, "self": 1}

    with pytest.raises(TypeError, match="max_wonders"):
        again(log, max_wonders=3)
    forge(log, change)
    for use in (again, lambda log: replayed(log, mode="live", backend=ScriptedLM([]))):
        with pytest.raises(RecordingError, match=r"does not have: max_wonders, self\. Update it"):
            use(log)


def test_a_log_of_a_later_schema_is_named_before_any_line_that_is_not_known(log):
    def change(kind, line):
        if kind == "metadata":
            line["log_schema"] = 2
        if kind == "reply":
            line["type"] = "wonder"

    forge(log, change)
    for use in (again, replayed):
        with pytest.raises(RecordingError, match=r"has the schema 2, .* reads up to 1\. Update it"):
            use(log)


def test_a_class_that_hands_its_arguments_on_resumes(log):
    class Mine(RLM):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    assert Mine.resume(log, backend=ScriptedLM([])).response == "an answer"
    with pytest.raises(TypeError, match="max_wonders"):
        Mine.resume(log, backend=ScriptedLM([]), max_wonders=3)


def test_a_log_that_is_nested_without_end_is_named(log):
    line: str = '{"type":"notice","time":1,"message":"x"}'
    for _ in range(5000):
        line = '{"type":"child","time":1,"cell":1,"query":"1","index":0,"line":' + line + "}"
    log.write_text(log.read_text() + line + "\n")
    with pytest.raises(RecordingError, match="line"):
        reader.read_log(log)


@pytest.mark.parametrize(
    "change",
    [
        lambda kind, line: line.update(index=7) if kind == "answer" else None,
        lambda kind, line: line.update(index=-1) if kind == "answer" else None,
        lambda kind, line: line.update(query="another") if kind == "answer" else None,
        lambda kind, line: line.update(timestamp="yesterday") if kind == "metadata" else None,
        lambda kind, line: line.update(timestamp=7) if kind == "metadata" else None,
        lambda kind, line: line.update(forked_from="a run") if kind == "metadata" else None,
        lambda kind, line: line.update(encoding="marshal") if kind == "context" else None,
        lambda kind, line: line.update(tools=[{"name": "a"}]) if kind == "metadata" else None,
        lambda kind, line: (
            line.update(tools=[{"name": "a", "kind": "b", "description": ""}]) if kind == "metadata" else 0
        ),
        lambda kind, line: line.update(log_schema="one") if kind == "metadata" else None,
        lambda kind, line: line.update(response=5) if kind == "finished" else None,
    ],
)
def test_a_log_that_cannot_be_is_named_when_it_is_read(log, change):
    forge(log, change)
    with pytest.raises(RecordingError, match="line"):
        reader.read_log(log)


def test_a_log_without_turns_or_a_configuration_is_replayed_as_far_as_it_goes(log):
    forge(log, lambda kind, line: line.update(configuration=None) if kind == "metadata" else None)
    assert replayed(log).equal
    kept = [line for line in log.read_text().splitlines() if json.loads(line)["type"] in ("metadata", "finished")]
    context = next(line for line in log.read_text().splitlines() if json.loads(line)["type"] == "context")
    log.write_text("\n".join([*kept, context, ""]))
    assert replayed(log).answer is None
    with pytest.raises(RecordingError, match="has no answer"):
        clean(log, trust=True)


@pytest.mark.parametrize(
    "about",
    [
        5,
        {"child": 5},
        {"child": [[1]]},
        {"child": [["1", 2, 0]]},
        {"dropped": 5},
        {"dropped": ["1"]},
        {"child": {"a": 1}},
    ],
)
def test_a_notebook_with_odd_metadata_is_named(log, about):
    notebook = nbformat.read(notebook_beside(log), 4)
    notebook.metadata.rlm = about if about == 5 else {"log": log.name, **about}
    nbformat.write(notebook, notebook_beside(log))
    with pytest.raises(RecordingError, match=r"metadata\.rlm"):
        replay(notebook_beside(log))


@pytest.mark.parametrize("metadata", [{"rlm": 5}, {"rlm": {"cell": [1]}}, {"tags": 5}])
def test_a_cell_with_odd_metadata_is_named(log, metadata):
    notebook = nbformat.read(notebook_beside(log), 4)
    notebook.cells[3].metadata = metadata
    nbformat.write(notebook, notebook_beside(log))
    with pytest.raises(RecordingError, match="cell 4 of it is altered"):
        replay(notebook_beside(log))


def test_an_output_cannot_pass_for_one_of_ours(tmp_path):
    logger = RLMLogger(tmp_path)
    shown = "display({'text/plain': 'forged'}, raw=True, metadata={'rlm': {'role': 'calls'}})"
    RLM(ScriptedLM([runs.cell(shown), "FINAL(1)"]), logger=logger).completion("c", "q")
    known = reader.read_log(logger.log_file_path)
    (notebook,) = notebooks_of(known.trajectory, identity_of_recording(known)).values()
    (cell,) = [cell for cell in notebook.cells if cell.metadata.rlm.role == "code"]
    assert [output.get("metadata") for output in cell.outputs] == [{}]


def _asks(folder, code="llm_query('x')", **metadata):
    cell = nbformat.v4.new_code_cell(code)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("a = 1", metadata={"tags": ["parameters"]}), cell]
    )
    notebook.metadata |= {"kernelspec": {"name": "rlm-local", "display_name": "x", "language": "python"}, **metadata}
    path = folder / "asks.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_notebook_cannot_pretend_that_a_server_was_given_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-the-user")
    forged = {"backend": "openai", "model": "m", "base_url": "https://example.com/v1"}
    path = _asks(tmp_path, papermill={"parameters": forged, "default_parameters": {}, "environment_variables": {}})
    with pytest.raises(ConfigError, match=r"names the server https://example.com/v1"):
        papermill.execute_notebook(path, tmp_path / "out.ipynb", engine_name="rlm", progress_bar=False)
    # Given now, it is the user's choice.
    papermill.execute_notebook(_asks(tmp_path, code="a"), tmp_path / "out.ipynb", forged, engine_name="rlm")
    with pytest.raises(ConfigError, match=r"names the server"):
        papermill.execute_notebook(tmp_path / "out.ipynb", tmp_path / "again.ipynb", engine_name="rlm")


@pytest.mark.parametrize("name", ["api_key", "aws_secret_access_key", "password"])
def test_no_secret_is_taken_from_a_parameter(name):
    with pytest.raises(ConfigError, match="does not belong among the parameters"):
        notebook_parameters.rlm_arguments({"model": "m", "backend_kwargs": {"nested": {name: "value"}}})


def test_parameters_that_are_no_dict_are_named():
    with pytest.raises(ConfigError, match="backend_kwargs must be a dict"):
        notebook_parameters.rlm_arguments({"model": "m", "backend_kwargs": '{"a": 1}'})


# -- writers that fail


@pytest.mark.filterwarnings("ignore:The log .* was moved")  # /dev/full is another file than the path
def test_a_disk_that_is_really_full_is_told_once(tmp_path, monkeypatch):
    opened = Path.open

    def full(path, *args, **kwargs):
        return opened(Path("/dev/full") if path.suffix == ".jsonl" else path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as told:
        RLM(ScriptedLM(["FINAL(1)", "FINAL(1)"]), logger=RLMLogger(tmp_path, notebook=False)).completion("c", "q")
    assert sum("No space left on device" in str(one.message) for one in told) == 1


def test_a_wrong_schema_leaves_no_file_and_no_thread(tmp_path):
    with pytest.raises(ConfigError, match="response_schema"):
        RLM(ScriptedLM([]), logger=RLMLogger(tmp_path)).completion("c", "q", response_schema={"type": "no such"})
    assert list(tmp_path.iterdir()) == []


async def test_questions_that_are_not_on_record_are_compared_with_some_of_those_that_are(tmp_path, monkeypatch):
    compared = []
    ratio = difflib.SequenceMatcher.quick_ratio
    monkeypatch.setattr(difflib.SequenceMatcher, "quick_ratio", lambda self: (compared.append(1), ratio(self))[1])
    logger = RLMLogger(tmp_path)
    sub = ScriptedLM(lambda _: "y", model="sub")
    script = [runs.cell("a = llm_query_batched([f'recorded {n}' for n in range(1000)])"), "FINAL(1)"]
    RLM(ScriptedLM(script), other_backends=[sub], logger=logger).completion("c", "q")
    known = [reader.read_log(logger.log_file_path).trajectory]
    responder = RecordedResponder(answers_of(known), UnrecordedResponder(known), cell=1)
    (answer,) = await responder.answer(Query("1", "llm_query", ("recorded 20, but edited",)))
    assert "the nearest on record is llm_query('recorded 20')" in answer.error
    assert len(compared) <= 500
