import json
import os
import pty
import subprocess

import psutil
import pytest
from by_hand import pdf
from loopback import MODEL, Fails, Hangs, Says
from recorded_runs import notebook_beside

from rlm_kernel.cli import exit_codes, main
from rlm_kernel.errors import (
    BudgetExceededError,
    CancellationError,
    ConfigError,
    KernelError,
    LimitError,
    LMError,
    TimeoutExceededError,
)
from rlm_kernel.provisioners.sandbox.walls import trouble
from rlm_kernel.trajectory.log.file_names import stem_of

LOOK = "I look.\n```repl\nprint(type(context).__name__, len(context))\n```"
SECONDS = 2.5  # Ctrl-C ends within two; the rest is for a busy machine

COMMANDS = "run demo replay resume show view diff export trust attach kernel doctor".split()


def test_the_answer_alone_is_on_stdout(asking, provider):
    provider.script = [LOOK, "FINAL(forty-two)"]
    done = asking("What is it?")
    assert (done.returncode, done.stdout) == (0, b"forty-two\n")
    shown = done.stderr.decode()
    assert "str 11" in shown  # without --context the question is the context
    assert "\x1b" not in shown
    assert "Traceback" not in shown


def test_quiet_says_nothing(asking, provider):
    provider.script = [LOOK, "FINAL(1)"]
    assert asking("q", "--quiet").stderr == b""


def test_json_is_one_object_with_answer_usage_seconds_and_model(asking, provider):
    provider.script = [LOOK, Says("FINAL(1)", usage=(7, 5))]
    answer = json.loads(asking("q", "--json").stdout)
    assert answer["answer"] == "1"
    assert answer["model"] == MODEL
    assert answer["seconds"] > 0
    assert answer["usage"]["model_usage_summaries"][MODEL]["total_calls"] == 2


def test_a_file_is_the_context_byte_for_byte(asking, provider, rlm):
    (rlm.folder / "notes.txt").write_bytes(b"caf\xc3\xa9 \xff\r\n")
    provider.script = ["```repl\nprint(context.encode('utf-8', 'surrogateescape'))\nFINAL(context)\n```"]
    done = asking("What does it say?", "--context", "notes.txt")
    assert done.stdout == b"caf\xc3\xa9 \xff\r\n\n"
    assert r"b'caf\xc3\xa9 \xff\r\n'" in done.stderr.decode()
    assert "What does it say?" in str(provider.requests[0].messages)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_a_table_in_the_encoding_of_a_spreadsheet_is_read_and_told(asking, provider, rlm, encoding):
    (rlm.folder / "people.csv").write_bytes("name,city\nMüller,Köln\nSmith,York\n".encode(encoding))
    rows = "[row['city'] for row in csv.DictReader(io.StringIO(context)) if row['name'] == 'Müller']"
    provider.script = [f"```repl\nimport csv, io\nFINAL(str({rows}))\n```"]
    done = asking("Where is Müller?", "--context", "people.csv", "--no-log")
    assert done.stdout.decode() == "['Köln']\n"
    shown = {"cp1252": "cp1252", "utf-16": "UTF-16"}.get(encoding)
    assert (f"people.csv: read as {shown}" in done.stderr.decode()) == (shown is not None)


def test_a_document_on_stdin_and_in_a_file_is_text(asking, provider, rlm):
    (rlm.folder / "report.pdf").write_bytes(pdf())
    provider.script = ["```repl\nFINAL(context)\n```"] * 2
    for source in ("report.pdf", "-"):
        done = asking("q", "--context", source, "--no-log", stdin=(rlm.folder / "report.pdf").read_bytes())
        assert done.stdout == b"Mueller owes 12 euros\n\n\n"


@pytest.mark.parametrize("arguments", [("--context", "."), ("--context", "project")])
def test_keys_and_the_work_of_others_are_left_out_of_a_folder(asking, provider, rlm, arguments):
    for file in (".env", ".venv/lib.py", "node_modules/x.js", "sub/__pycache__/a.pyc", "sub/.hidden", "a.py"):
        path = rlm.folder / arguments[1] / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("SECRET_KEY=12")
    provider.script = ["```repl\nFINAL(str(sorted(context)))\n```"]
    done = asking("q", *arguments, "--no-log")
    assert done.stdout == b"['a.py']\n"
    left_out = ".env, .venv/, node_modules/, sub/.hidden, sub/__pycache__/"
    assert f"1 files, 13 characters; skipped {left_out}" in done.stderr.decode()


@pytest.mark.parametrize(("option", "variable"), [(["--sandbox"], ""), ([], "1")])
def test_a_sandbox_is_chosen_by_an_option_or_for_the_machine(asking, provider, rlm, option, variable):
    if all(map(trouble, ("bwrap", "landlock"))):
        pytest.skip("this machine has no sandbox")
    rlm.environment["RLM_SANDBOX"] = variable
    (rlm.folder / "secret").write_text("s3cret")
    provider.script = [
        f"```repl\ntry: FINAL(open({str(rlm.folder / 'secret')!r}).read())\nexcept OSError: FINAL('closed')\n```"
    ]
    assert asking("q", "--no-log", *option).stdout == b"closed\n"


def test_options_of_the_environment_are_given_as_pairs(asking, provider):
    provider.script = ["```repl\nimport os; FINAL(os.environ['PLACE'] + str(prepared))\n```"]
    pairs = ("--environment-kwarg", 'env={"PLACE": "here"}', "--environment-kwarg", "setup_code=prepared = 1")
    assert asking("q", "--no-log", *pairs).stdout == b"here1\n"


def test_a_token_of_the_environment_is_refused_on_the_command_line(asking):
    done = asking("q", "--environment", "jupyter", "--environment-kwarg", "token=s3cret-of-mine")
    assert done.returncode == 2
    assert b"does not belong on a command line" in done.stderr
    assert b"s3cret" not in done.stderr


def test_a_folder_is_a_dict_of_its_texts(asking, provider, rlm):
    project = rlm.folder / "project"
    (project / ".git").mkdir(parents=True)
    (project / ".git" / "config").write_text("secret")
    (project / "sub").mkdir()
    (project / "sub" / "b.txt").write_text("bee")
    (project / "a.py").write_text("pass")
    (project / "logo.png").write_bytes(b"\x89PNG\0")
    os.mkfifo(project / "pipe")
    provider.script = ["```repl\nFINAL(str(context))\n```"]
    done = asking("q", "--context", "project")
    assert done.stdout == b"{'a.py': 'pass', 'sub/b.txt': 'bee'}\n"
    assert "2 files, 7 characters; skipped 1 binary (logo.png) and .git/" in done.stderr.decode()


def test_stdin_is_the_context(asking, provider):
    provider.script = ["```repl\nFINAL(context.upper())\n```"]
    assert asking("q", "--context", "-", stdin=b"from a pipe").stdout == b"FROM A PIPE\n"


def test_piped_text_that_nobody_reads_is_said(asking, provider):
    provider.script = [LOOK, "FINAL(1)"]
    said = asking("Who?", stdin=b"some text").stderr.decode()
    assert "rlm: stdin is not read; use --context - to read it" in said


def test_the_limits_of_a_run_are_passed_on(asking, provider):
    provider.script = [Says(LOOK, usage=(7, 5)), "FINAL(1)"]
    done = asking("q", "--max-tokens", "10", "--max-budget", "1e9", "--max-timeout", "90", "--max-errors", "3")
    assert done.returncode == 3
    assert "The run used 12 tokens, its limit is 10: raise max_tokens." in done.stderr.decode()


def test_a_warning_is_one_line_without_the_place_in_our_code(asking, provider, rlm):
    (rlm.folder / "taken").touch()
    provider.script = [LOOK, "FINAL(1)"]
    done = asking("q", "--quiet", "--log-dir", "taken", "--max-budget", "1")
    lines = done.stderr.decode().splitlines()
    assert done.stdout == b"1\n"
    assert [line.split(":")[0] for line in lines] == ["rlm"] * len(lines)
    assert any(line.startswith("rlm: The run is not logged") for line in lines)
    assert any("max_budget does not count it" in line for line in lines)


def test_a_run_that_ends_in_code_has_no_answer(asking, provider):
    provider.script = [LOOK, LOOK, LOOK]
    done = asking("q", "--max-iterations", "1", "--quiet")
    assert (done.returncode, done.stdout) == (3, b"")
    assert "none when it was asked for its last word: raise max_iterations" in done.stderr.decode()


def test_json_has_null_for_an_unknown_cost_and_names_the_log(asking, provider, rlm):
    provider.script = [LOOK, "FINAL(1)"] * 2
    answer = json.loads(asking("q", "--json").stdout)
    (log,) = (rlm.folder / "rlm_logs").glob("*.events.jsonl")
    assert (answer["cost"], rlm.folder / answer["log"]) == (None, log.with_name(f"{stem_of(log)}.jsonl"))
    assert json.loads(asking("q", "--json", "--no-log").stdout)["log"] is None


def test_sub_calls_go_to_the_sub_model(asking, provider):
    provider.script = ["```repl\nFINAL(llm_query('hello'))\n```", "hi"]
    done = asking("q", "--sub-model", "little", "--json")
    assert json.loads(done.stdout)["answer"] == "hi"
    assert provider.requests[1].body["model"] == "little"


def test_max_iterations_and_backend_arguments_are_passed_on(asking, provider):
    provider.script = [LOOK, "FINAL(enough)"]
    assert asking("q", "--max-iterations", "1", "--backend-kwarg", 'sampling_args={"seed": 7}').returncode == 0
    assert provider.requests[0].body["seed"] == 7
    assert len(provider.requests) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["q", "--model", "m"], 2, "OPENAI_API_KEY"),
        (["q"], 2, "--model"),
        (["q", "--backend", "opnai"], 2, "did you mean 'openai'"),
        (["q", "--model", "m", "--backend-kwarg", "api_key=sk-123"], 2, "does not belong on a command line"),
        (["q", "--model", "m", "--backend-kwarg", "novalue"], 2, "KEY=VALUE"),
        (["q", "--model", "m", "--backend-kwarg", "api_key=k", "--environment", "mars"], 2, "command line"),
        (["q", "--max-iterations", "many"], 2, "invalid int value"),
        ([], 2, "question"),
        (["", "--model", "m"], 2, "The question is empty"),
        (["q", "--contxt", "x"], 2, "unrecognized arguments: --contxt x; did you mean '--context'?"),
        (["q", "--contxt", "x"], 2, "usage: rlm run"),
        (["q", "--zzz"], 2, "unrecognized arguments: --zzz\n"),
        (["q", "--context", "a", "--context", "b"], 2, "it was given twice"),
        (
            ["q", "--backend", "llamacpp", "--base-url", "http://127.0.0.1:9/v1", "--max-budget", "-1"],
            2,
            "max_budget must be",
        ),
    ],
)
def test_wrong_usage_is_one_clear_line(rlm, arguments, code, said):
    done = rlm("run", *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ("missing.txt", "No such file"),
        ("binary.bin", "is binary"),
        ("empty", "no text file"),
        ("empty.txt", "is empty"),
        ("-", "stdin is empty"),
        ("", "--context is empty: name a file or a folder"),
    ],
)
def test_a_context_that_cannot_be_used_is_one_clear_line(asking, rlm, context, said):
    (rlm.folder / "binary.bin").write_bytes(b"\0\1")
    (rlm.folder / "empty").mkdir()
    (rlm.folder / "empty.txt").touch()
    done = asking("q", "--context", context)
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()


def test_an_unknown_environment_is_a_configuration_error(asking):
    done = asking("q", "--environment", "mars")
    assert done.returncode == 2
    assert "'mars'" in done.stderr.decode()


def test_a_failing_provider_is_one_line_and_exit_code_4(asking, provider):
    provider.script = [Fails(401, "Incorrect API key")]
    done = asking("q", "--quiet")
    assert (done.returncode, done.stdout) == (4, b"")
    assert len(done.stderr.splitlines()) == 1
    assert b"401" in done.stderr


def test_debug_shows_the_traceback(asking, provider):
    provider.script = [Fails(401, "Incorrect API key")]
    assert b"Traceback" in asking("q", "--debug").stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (TimeoutExceededError(elapsed=3.0, timeout=2.0), 3),
        (BudgetExceededError(spent=2.0, budget=1.0), 3),
        (LMError("x", backend="b", model="m"), 4),
        (KernelError("x"), 5),
        (NotImplementedError("x"), 6),
        (CancellationError(message="x"), 130),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_the_exit_code_tells_the_kind_of_error(monkeypatch, capsys, error, code):
    def fails(args):
        raise error

    monkeypatch.setattr("rlm_kernel.cli.run.execute", fails)
    assert main(["run", "q"]) == code
    assert capsys.readouterr().err.startswith("rlm: ")


def test_a_limit_shows_the_best_answer_so_far(monkeypatch, capsys):
    def fails(args):
        error = LimitError("too \x1b[31mlong")
        error.partial_answer = "almost\x1b[2J"
        raise error

    monkeypatch.setattr("rlm_kernel.cli.run.execute", fails)
    main(["run", "q"])
    assert capsys.readouterr().err == "rlm: too long\nrlm: best answer so far: almost\n"


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_fits_on_a_screen_and_shows_the_exit_codes(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "102")  # argparse leaves two columns free
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    for row in exit_codes.TABLE:
        assert f"{row.code:>3}  {row.meaning}" in shown


def test_the_version_is_said(rlm):
    assert rlm("--version").stdout.startswith(b"rlm-kernel ")


def test_ctrl_c_ends_a_run_while_the_model_thinks(rlm, provider, ctrl_c):
    provider.script = [Hangs()]
    rlm.environment |= provider.environment
    process = rlm.start("run", "q", "--model", MODEL)
    provider.wait_for_requests(1)
    assert _ended_by(ctrl_c, process) == 130


def test_ctrl_c_ends_a_run_while_a_cell_runs(rlm, provider, ctrl_c):
    cell = "```repl\nimport time\nllm_query('it runs')\ntry:\n    time.sleep(60)\nfinally:\n    time.sleep(60)\n```"
    provider.script = [cell, "go on"]
    rlm.environment |= provider.environment
    process = rlm.start("run", "q", "--model", MODEL)
    provider.wait_for_requests(2)
    assert _ended_by(ctrl_c, process) == 130


def test_ctrl_c_ends_the_reading_of_stdin(rlm, ctrl_c):
    rlm.environment |= {"OPENAI_API_KEY": "k"}
    process = rlm.start("run", "q", "--model", MODEL, "--context", "-", "--quiet", stdin=subprocess.PIPE)
    process.stdin.write(b"x" * 1_000_000)  # more than a pipe holds: when this is done, somebody reads
    assert _ended_by(ctrl_c, process) == 130


def _ended_by(ctrl_c, process):
    children = psutil.Process(process.pid).children(recursive=True)
    ctrl_c(process)
    _, stderr = process.communicate(timeout=SECONDS)
    assert b"Traceback" not in stderr
    assert b"Ctrl-C" in stderr
    assert psutil.wait_procs(children, timeout=5)[1] == []
    return process.returncode


def test_a_closed_stdout_is_no_traceback(rlm, provider):
    provider.script = [LOOK, Hangs(then="FINAL(42)")]
    rlm.environment |= provider.environment
    process = rlm.start("run", "q", "--model", MODEL, "--quiet")
    provider.wait_for_requests(2)
    process.stdout.close()
    provider.release()
    with process:
        assert process.stderr.read() == b""
    assert process.returncode == exit_codes.PIPE_CLOSED


def test_a_closed_stderr_does_not_stop_the_run(rlm, provider):
    provider.script = [Hangs(then=LOOK), "FINAL(42)"]
    rlm.environment |= provider.environment
    process = rlm.start("run", "q", "--model", MODEL)
    provider.wait_for_requests(1)
    process.stderr.close()
    provider.release()
    with process:
        assert process.stdout.read() == b"42\n"


def test_on_a_terminal_the_run_is_live_and_the_answer_is_text_only(rlm, provider):
    provider.script = [LOOK, "```repl\nFINAL('forty\\x1b[2J-two')\n```"]
    rlm.environment |= provider.environment | {"TERM": "xterm-256color", "COLUMNS": "100"}
    ours, theirs = pty.openpty()
    process = rlm.start("run", "q", "--model", MODEL, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = _read_all(ours)
    assert process.wait(timeout=10) == 0
    assert "\x1b[?25l" in shown  # the cursor is hidden while the status moves,
    assert "\x1b[?25h" in shown  # and comes back
    assert "\x1b[2J" not in shown
    assert shown.rstrip().endswith("forty-two")


def _read_all(terminal):
    pieces = []
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(terminal)
    return b"".join(pieces).decode()


def test_a_run_is_kept_as_log_and_notebook_unless_told_otherwise(asking, provider, rlm):
    provider.script = [LOOK, "FINAL(1)"] * 3
    done = asking("q")
    (log,) = (rlm.folder / "rlm_logs").glob("*.events.jsonl")
    assert f"The notebook of this run: rlm_logs/{notebook_beside(log).name}" in done.stderr.decode()
    assert notebook_beside(log).is_file()
    assert b"notebook" not in asking("q", "--no-log").stderr
    assert len(list((rlm.folder / "rlm_logs").glob("*.events.jsonl"))) == 1
    asking("q", "--log-dir", "elsewhere", "--quiet")
    assert len(list((rlm.folder / "elsewhere").glob("*.events.jsonl"))) == 1


def test_git_leaves_the_usual_folder_alone_and_no_other(asking, provider, rlm):
    provider.script = [LOOK, "FINAL(1)"] * 3
    asking("q", "--quiet")
    assert (rlm.folder / "rlm_logs" / ".gitignore").read_text() == "*\n"
    (rlm.folder / "rlm_logs" / ".gitignore").unlink()
    asking("q", "--quiet")
    assert not (rlm.folder / "rlm_logs" / ".gitignore").exists()
    asking("q", "--quiet", "--log-dir", "elsewhere")
    assert not (rlm.folder / "elsewhere" / ".gitignore").exists()


def test_a_person_confirms_each_cell_and_call(asking, provider):
    code = "```repl\nfound = llm_query('one')\n```"
    provider.script = ["```repl\nimport shutil\n```", code, "FINAL_VAR(found)"]
    done = asking("q", "--confirm", stdin=b"no files, please\ny\nask nobody\n")
    shown = done.stderr.decode()
    assert "The model wants to run this cell:\nimport shutil\n" in shown
    assert "The model wants to call llm_query('one')" in shown
    assert "no files, please" in str(provider.requests[1].messages)
    assert "ask nobody" in str(provider.requests[2].messages)


def test_a_confirmed_cell_may_be_edited_and_without_answers_nothing_runs(asking, provider):
    provider.script = ["```repl\nFINAL(1)\n```"]
    assert asking("q", "--confirm", stdin=b"e\nx = 2\nFINAL(x)\n\n").stdout == b"2\n"
    provider.script = ["```repl\nFINAL(1)\n```", "FINAL(nothing ran)"]
    assert asking("q", "--confirm").stdout == b"nothing ran\n"
    assert asking("q", "--confirm", "--context", "-").returncode == exit_codes.code_of(ConfigError(""))
