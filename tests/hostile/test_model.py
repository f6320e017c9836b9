"""What a model writes: replies and cells that would keep the host busy, fill it, or get round its limits."""

from __future__ import annotations

import ast
import asyncio
import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import nbformat
import psutil
import pytest
from fuzz import linear, texts
from hostile.bounded import FLOODS, MAX_GROWTH, PATIENCE, hosts
from places import MEASURED, SANDBOXES, living_kernels
from recorded_runs import code, notebook_beside, record, record_file
from selection import mostly_full

from rlm import (
    RLM,
    BudgetExceededError,
    ConfigError,
    RecordingError,
    ScriptedLM,
    TimeoutExceededError,
    TokenLimitExceededError,
)
from rlm.logger import RLMLogger
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.replay.minimise import clean
from rlm_kernel.replay.replayer import replay
from rlm_kernel.replay.steps import run_of
from rlm_kernel.text import plain
from rlm_kernel.trajectory import events, output_queue
from rlm_kernel.trajectory.log.file_names import TURNS, file_beside, stem_of
from rlm_kernel.trajectory.log.reader import read_log
from rlm_kernel.trajectory.notebook.setup_cell import replay_code
from rlm_kernel.types import Answer, Reply, Usage


@pytest.fixture(scope="module", params=MEASURED)
def greedy_host(request, tmp_path_factory):
    yield from hosts(request, tmp_path_factory)


@pytest.fixture(scope="module", params=["local", *SANDBOXES])
def greedy_local_host(request, tmp_path_factory):
    yield from hosts(request, tmp_path_factory)


def test_four_hundred_megabytes_are_told_to_the_cell_or_shown_by_their_ends(greedy_host):
    report = greedy_host.run(
        "huge = 'x' * 400_000_000\nprint(huge)",
        "from IPython.display import display\ndisplay({'text/html': huge}, raw=True)",
        "FINAL(huge)",
        "answer['content'] = huge; answer['ready'] = True",
        "answer['content'] = ''; answer['ready'] = False\nFINAL(len(huge))",
        cell_timeout=60,
        max_timeout=110,
    )
    printed, displayed, final, ready = report["told"]
    assert report["answer"] == "400000000"
    assert report["grown"] < MAX_GROWTH
    assert "characters of output were not kept" in printed + displayed  # ipykernel waits ten seconds for a stream
    for told in (final, ready):
        assert "it has 400,000,000 bytes; an answer may have at most 20,000,000" in told


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("llm_query('x' * 104_857_600)", "bytes; a question may have at most 20,000,000"),
        (
            "import sys; sys.modules['rlm_guest.wire'].MAX_QUESTION_BYTES = 10**12\nllm_query('x' * 104_857_600)",
            "this question has 104,857,",
        ),
        ("tool('x' * 300_000_000)", "this call has 300,000,"),
        ("raise ValueError('x' * 100_000_000)", "too many to be read"),
        ("llm_query_batched(['x'] * 4_000_000)", "takes at most 200,000 prompts at a time, not 4,000,000"),
    ],
    ids=["a prompt", "a prompt past the guest", "arguments of a tool", "an error", "prompts of a batch"],
)
def test_what_is_too_large_is_an_error_in_the_cell(greedy_local_host, code, words):
    report = greedy_local_host.run("kept = 1", code, "FINAL(kept)")
    assert report["answer"] == "1"
    assert report["grown"] < MAX_GROWTH
    assert words in report["told"][1]


def test_eight_large_questions_at_a_time_wait_for_one_another(greedy_host):
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def ask(n):\n"
        "    try: return llm_query('x' * 19_000_000 + chr(128512))\n"
        "    except ValueError as error: return str(error)\n"
        "with ThreadPoolExecutor(8) as pool: print(set(pool.map(ask, range(8))))"
    )
    report = greedy_host.run(code, "FINAL(1)", cell_timeout=100, max_timeout=110)
    assert report["grown"] < MAX_GROWTH
    assert "short" in report["told"][0]


def test_a_batch_of_more_than_a_question_holds_is_asked_in_several(greedy_local_host):
    report = greedy_local_host.run("FINAL(len(llm_query_batched(['x' * 100_000] * 300 + ['y'] * 3_000)))")
    assert report["answer"] == "3300"
    assert report["asked"] == 3300
    assert report["grown"] < MAX_GROWTH


@pytest.mark.parametrize("flood", mostly_full(FLOODS, "prompts", "updates"))
def test_a_flood_ends_with_the_time_of_the_run(greedy_local_host, flood):
    report = greedy_local_host.run(FLOODS[flood], cell_timeout=None, max_timeout=4)
    assert report["error"] == "TimeoutExceededError"
    assert report["grown"] < MAX_GROWTH
    assert report["late_work"] < PATIENCE


@pytest.mark.parametrize("flood", mostly_full(FLOODS, "prompts", "updates"))
def test_a_flood_ends_with_the_time_of_the_cell(greedy_local_host, flood):
    report = greedy_local_host.run("kept = 1", FLOODS[flood], "FINAL(kept)", cell_timeout=2, max_timeout=60)
    assert report["answer"] == "1"
    assert "took too long" in report["told"][1] or "a cell may ask at most" in report["told"][1]


PICTURE = "b'\\x89PNG\\r\\n\\x1a\\n' + random.randbytes(200_000)"


def size_of(folder):
    """What the files of runs take; the replay code that all notebooks of a folder share belongs to no run."""
    shared = Path(folder) / replay_code().name
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file() and file != shared)


def logged(folder, cells, *, limit=None, lm=None, **arguments):
    """Run cells and keep them; returns the log, the answer, and what the user was told."""
    said = [code(cell) for cell in cells] + ["FINAL(done)"] * 2

    def script(messages):
        return "short" if len(messages) == 1 else said[sum(one["role"] == "assistant" for one in messages)]

    logger = RLMLogger(folder, **({} if limit is None else {"max_log_bytes": limit}))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with RLM(lm or ScriptedLM(script), logger=logger, **arguments) as rlm:
            answer = rlm.completion("some context", "q").response
    return record_file(logger), answer, [str(warning.message) for warning in told]


# -- what is refused leaves a few words

REFUSED = {
    "an unknown model": "llm_query(str(n) + 'x' * 300_000, model='no such')",
    "a model with a long name": "llm_query('x', model=str(n) + 'x' * 300_000)",
    "a wrong schema": "llm_query(str(n) + 'x' * 300_000, schema={'type': 'no such'})",
    "a long wrong schema": "llm_query('x', schema={'type': 'no such', 'title': str(n) + 'x' * 300_000})",
    "a prompt that is too long": "llm_query(str(n) + 'x' * 300_000)",
    "pictures for a model that takes none": f"llm_query(str(n), images=[{PICTURE}])",
}


class Blind(ScriptedLM):
    """A model that looks at no pictures."""

    takes_images = False


@pytest.mark.parametrize("attempt", REFUSED)
def test_what_is_refused_is_not_written_down_in_full(tmp_path, attempt):
    cell = (
        f"import random\nfor n in range(20):\n    try: {REFUSED[attempt]}\n    except (ValueError, RuntimeError): pass"
    )
    lm = Blind([code(cell), "FINAL(done)"], context_window=20_000)
    log, answer, told = logged(tmp_path, [], lm=lm)
    assert (answer, told) == ("done", [])
    known = read_log(log).trajectory.cells[0]
    assert len(known.calls) == 20
    assert all(call.answers[0].error for call in known.calls)
    assert size_of(tmp_path) < 600_000
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == set()
    assert replay(log).equal


# -- what is large is written once


def test_a_large_prompt_is_written_once_however_often_it_is_asked(tmp_path):
    cell = "prompt = 'start ' + 'x' * 200_000 + ' end'\nprint([llm_query(prompt) for _ in range(30)] == ['short'] * 30)"
    log, _, told = logged(tmp_path, [cell])
    assert told == []
    (stored,) = (tmp_path / "prompts").iterdir()
    assert stored.stat().st_size == 200_010
    assert log.stat().st_size < 200_000
    known = read_log(log)
    (first, *_) = calls = known.trajectory.cells[0].calls
    assert first.started.prompts[0] == stored.read_text()
    assert all(call.started.prompts[0] is first.started.prompts[0] for call in calls)
    shown = json.loads(next(line for line in log.read_text().splitlines() if '"type":"subcall"' in line))
    assert shown["prompts"][0].startswith("start x")
    assert shown["prompts"][0].endswith("x end")
    assert replay(log).equal
    stored.write_text("altered")
    assert replay(log).equal  # what identifies a prompt stands in the log
    assert read_log(log).trajectory.cells[0].calls[0].started.prompts == tuple(shown["prompts"])


def test_a_picture_is_written_once_and_when_a_model_was_asked(tmp_path):
    cell = f"import random\nimage = {PICTURE}\nprint({{llm_query('what is it?', images=[image]) for _ in range(10)}})"
    said = [code(cell), *["short"] * 10, "FINAL(done)"]
    log, *_ = logged(tmp_path, [], lm=ScriptedLM(said))
    assert [path.stat().st_size for path in (tmp_path / "images").iterdir()] == [200_008]
    assert log.stat().st_size < 100_000


def test_the_large_input_of_a_child_is_found_again_or_named_as_missing(tmp_path):
    run = record(tmp_path, [code("rlm_query('y' * 100_000)"), "FINAL(1)"], max_depth=2)
    recording = read_log(run.log)
    (call,) = recording.trajectory.cells[0].calls
    about = {"child": [[1, call.started.query, 0]]}
    assert replay(run_of(recording, about)).equal
    (child,) = run.log.with_name(stem_of(run.log)).glob("*.ipynb")
    assert nbformat.read(child, 4).metadata.rlm.child
    shutil.rmtree(tmp_path / "prompts")
    with pytest.raises(RecordingError, match="prompts"):
        run_of(read_log(run.log), about)


def test_a_turn_with_thousands_of_calls_is_not_said_twice_in_full(tmp_path):
    log, *_ = logged(tmp_path, ["print(len(llm_query_batched([str(n) + 'x' * 3_000 for n in range(2_000)])))"])
    kinds = {}
    for line in log.read_bytes().splitlines():
        kind = json.loads(line)["type"]
        kinds[kind] = kinds.get(kind, 0) + len(line)
    assert kinds["iteration"] < 0.25 * kinds["subcall"]
    turns = file_beside(log, TURNS).read_bytes().splitlines()
    turn = next(line for line in map(json.loads, turns) if line["type"] == "iteration")
    assert len(turn["code_blocks"][0]["result"]["rlm_calls"]) == 1_000
    assert turn["code_blocks"][0]["result"]["rlm_calls_left_out"] == 1_000


# -- the quota

FILL = "first = llm_query('one')\nprint(first)"
FLOOD = "import random\nfor n in range(60): llm_query(f'{random.random()}' * 1_000)\nprint('flooded')"
AFTER = "print('x' * 50_000)\nlater = llm_query('later')"


@pytest.mark.parametrize("limit", [2**16, 400_000])
def test_a_run_writes_no_more_than_its_quota_and_goes_on(tmp_path, limit):
    log, answer, told = logged(tmp_path, [FILL, FLOOD, AFTER], limit=limit)
    assert answer == "done"
    assert sum("as large as they may be" in message for message in told) == 1
    assert size_of(tmp_path) <= limit + 4_000
    known = read_log(log)
    assert known.flaw is None
    assert known.trajectory.completion.response == "done"
    assert any("max_log_bytes" in notice for turn in known.trajectory.turns for notice in turn.notices)


def test_a_log_that_reached_its_quota_is_replayed_as_far_as_it_is_whole_and_says_so(tmp_path):
    log, *_ = logged(tmp_path, [FILL, FLOOD, AFTER], limit=400_000)
    assert read_log(log).clipped_at == 2
    report = replay(log)
    assert report.results.keys() == {1}
    assert [(d.kind, d.cell) for d in report.divergences] == [("record", 2)]
    assert "max_log_bytes" in str(report)
    with pytest.raises(RecordingError, match=r"not whole from cell 2 on.*at=1 or less"):
        RLM.resume(log, backend=ScriptedLM([]))
    with pytest.raises(RecordingError, match="max_log_bytes"):
        clean(log)
    again = ScriptedLM(["FINAL(done)"])
    assert RLM.resume(log, at=1, backend=again).response == "done"
    assert len(again.calls) == 1


def test_an_input_that_is_larger_than_the_quota_is_told_and_given_again(tmp_path):
    logger = RLMLogger(tmp_path, max_log_bytes=100_000)
    given = "words " * 50_000
    RLM(ScriptedLM([code("FINAL(len(context))")]), logger=logger).completion(given, "q")
    assert size_of(tmp_path) < 100_000
    with pytest.raises(RecordingError, match=r"300,000 bytes.*give the context again"):
        replay(logger.log_file_path)
    assert replay(logger.log_file_path, context=given).equal


def test_the_bound_is_told_in_the_stream_too(tmp_path):
    cells = [code("print('x' * 100_000)"), "FINAL(1)"]

    async def told():
        async with RLM(ScriptedLM(cells), logger=RLMLogger(tmp_path, max_log_bytes=2**16)) as rlm:
            return [event async for event in rlm.stream("c", "q")]

    with pytest.warns(RuntimeWarning, match="max_log_bytes"):
        seen = asyncio.run(told())
    assert any(isinstance(event, events.Notice) and "max_log_bytes" in event.message for event in seen)
    assert isinstance(seen[-1], events.RunFinished)


@pytest.mark.parametrize("wrong", [0, -1, 1000, True, "1g", 1.5])
def test_a_quota_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigError, match="max_log_bytes"):
        RLMLogger(max_log_bytes=wrong)


# -- the log under a run


@pytest.mark.parametrize(
    ("do", "why"),
    [
        ("file.rename(str(file) + '.moved')", "was moved or replaced during the run"),
        ("file.rename(str(file) + '.moved'); file.write_text('{}')", "was moved or replaced during the run"),
        ("file.write_text('')", "was changed by another program during the run"),
    ],
)
def test_a_log_that_is_moved_or_emptied_under_a_run_is_told_once(tmp_path, do, why):
    code = f"import pathlib\nfor file in pathlib.Path({str(tmp_path)!r}).glob('*.events.jsonl'): {do}"
    _, answer, told = logged(tmp_path, [code, "print(2)", "print(3)"])
    assert answer == "done"
    (message,) = told
    assert why in message


def test_a_log_that_is_removed_under_a_run_is_told_and_written_again_whole(tmp_path):
    folder = tmp_path / "logs"
    remove = f"import shutil; shutil.rmtree({str(folder)!r}); print(llm_query('one'))"
    log, answer, told = logged(folder, ["print(1)", remove, "print(3)"])
    assert answer == "done"
    assert [message for message in told if "was removed during the run" in message] == told
    assert len(told) == 1
    known = read_log(log)
    assert known.flaw is None
    assert len(known.trajectory.cells) == 3
    assert notebook_beside(log).is_file()
    assert known.context.value == "some context"


def test_a_disk_that_is_full_is_told_and_the_log_ends_with_a_whole_line(tmp_path):
    program = """
import resource, signal, sys, warnings
from rlm import RLM, ScriptedLM
from rlm.logger import RLMLogger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
cells = ["print('x' * 20_000)"] * 4
lm = ScriptedLM([f"```repl\\n{cell}\\n```" for cell in cells] + ["FINAL(5)"])
print(RLM(lm, logger=RLMLogger(sys.argv[1], notebook=False)).completion("c", "q").response)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "5\n"
    assert done.stderr.count("the run goes on") == 1
    (log,) = tmp_path.glob("*.events.jsonl")
    assert log.read_bytes().endswith(b"\n")
    assert log.stat().st_size <= 60_000
    assert read_log(log).flaw is None


# -- descriptors


def test_a_run_opens_no_more_files_however_many_turns_it_takes(tmp_path):
    count = []
    cells = [f"print(llm_query('{n}'))" for n in range(12)]
    logged(tmp_path, cells, on_iteration_start=lambda *_: count.append(len(list(Path("/proc/self/fd").iterdir()))))
    assert max(count[5:]) <= max(count[1:5])


def test_too_few_files_are_named_as_the_cause_before_a_turn_is_spent():
    program = """
from rlm import RLM, ScriptedLM
lm = ScriptedLM(["```repl\\nprint(1)\\n```"] * 40)
try:
    RLM(lm).completion("c", "q")
except Exception as error:
    print(type(error).__name__, error)
"""
    for limit in (50, 60, 64):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
        )
        assert done.stdout.startswith("KernelError")
        assert f"{limit} files" in done.stdout
        assert "ulimit -n" in done.stdout


PATTERNS = {name: pattern for module in linear.modules() for name, pattern in linear.patterns(module)}
PATTERNS |= dict(linear.patterns_of_profiles())


@pytest.mark.parametrize("name", PATTERNS)
def test_no_regular_expression_takes_more_than_linear_time(name):
    pattern = PATTERNS[name]
    linear.search(lambda text: pattern.sub("", text), linear.alphabet(pattern), examples=20)


@pytest.mark.parametrize("name", texts.FUNCTIONS)
def test_no_reader_of_foreign_text_takes_more_than_linear_time(name):
    function, alphabet = texts.FUNCTIONS[name]
    worst = linear.search(function, alphabet, examples=20)
    linear.check(function, worst, [linear.WHOLE])


@pytest.mark.parametrize("introducer", ["\x90", "\x98", "\x9b", "\x9d", "\x9e", "\x9f", "\x1b]", "\x1bP", "\x1b[1;"])
def test_sequences_without_an_end_do_not_freeze_the_host(introducer):
    linear.check(plain, linear.Attack("", introducer, ""), [2_000, 70_000, linear.WHOLE])


def test_every_regular_expression_is_compiled_where_it_can_be_found():
    """So that a new one is covered by the test above: `re.search("…", text)` inside of a function would not be."""
    assert [
        f"{file.relative_to(linear.ROOT)}:{call.lineno}"
        for file in linear.sources()
        for call in calls_of_re(ast.parse(file.read_text("utf-8")))
    ] == []


def calls_of_re(tree):
    within = {id(node) for function in functions(tree) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re."):
            name = node.func.attr
            if name == "escape" or (name == "compile" and (id(node) not in within or is_found(node))):
                continue
            yield node


def is_found(call):
    """Whether a pattern that is made in a function is made of escaped text, or of one that a profile keeps."""
    argument = call.args[0]
    return "re.escape" in ast.unparse(argument) or isinstance(argument, ast.Name)


def functions(tree):
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


ENDLESS = "```repl\nwhile True:\n    print({fragment!r} * 500_000)\n```"
ATTACKS = {
    "introducers": "\x9d",
    "paints": "\r\u2028\x9f",
    "lines": "\n",
    "backspaces": "x\b",
}
RUNS = {
    **{f"endless {name}": ([ENDLESS.format(fragment=fragment)], "") for name, fragment in ATTACKS.items()},
    "a traceback": (["```repl\nraise ValueError('\\x9d' * 2_000_000)\n```"], ""),
    "a reply of fences": (["```python\nWHOLE\n```"], "'''\n```\n"),
    "a reply of lines": (["WHOLE"], "```\n"),
    "a reply of answers": (["FINAL('WHOLE')"], "') "),
    "a reply that is a program": (["```python\nWHOLE\n```"], "a\n"),
}
WITHIN = 2.0
"""Seconds of the host's work between a deadline or Ctrl-C and the end of the run."""


class Host:
    """A run in a process of its own, whose work is measured: others may load the machine."""

    def __init__(self, folder, run, max_timeout):
        replies, fragment = RUNS[run]
        job = {"replies": replies, "fragment": fragment, "max_timeout": max_timeout, "folder": str(folder)}
        host = Path(__file__).with_name("text_host.py")
        self.process = subprocess.Popen(
            [sys.executable, str(host)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.process.stdin.write(json.dumps(job).encode())
        self.process.stdin.close()
        assert self.process.stdout.readline() == b"begun\n"

    def work(self):
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def has_a_reply(self, folder):
        """Wait until the model has written, and the host reads."""
        while not any(b'"type":"reply"' in log.read_bytes() for log in folder.glob("*.events.jsonl")):
            time.sleep(0.05)

    def outcome(self):
        """What became of the run, and how much the host has worked in all."""
        with self.process:
            *_, last = self.process.stdout.read().splitlines()
        return json.loads(last)


@pytest.mark.parametrize("run", mostly_full(RUNS, "endless introducers", "a reply of lines"))
def test_a_deadline_ends_a_run_whatever_its_model_writes(tmp_path, run):
    host = Host(tmp_path, run, max_timeout=4.0)
    time.sleep(4)
    before = host.work()
    outcome, work = host.outcome()
    if run.startswith("endless"):
        assert outcome == "TimeoutExceededError"
    else:  # a fast machine has read it all by then
        assert outcome in ("TimeoutExceededError", "NoAnswerError", "answer")
    assert work - before < WITHIN


@pytest.mark.parametrize("run", mostly_full(RUNS, "endless introducers", "a reply of lines"))
def test_ctrl_c_ends_a_run_whatever_its_model_writes(tmp_path, run):
    host = Host(tmp_path, run, max_timeout=100.0)
    host.has_a_reply(tmp_path)
    before = host.work()
    host.process.send_signal(signal.SIGINT)
    outcome, work = host.outcome()
    assert outcome == "CancellationError"
    assert work - before < WITHIN


TRANSPORTS = pytest.mark.parametrize("transport", ["ipc", "relay"])

EVERY_SIGNAL = (
    "import os, signal, subprocess, time\n"
    "for number in sorted(signal.valid_signals()):\n"
    "    os.kill(1, number)\n"
    "    time.sleep(0.02)\n"
    "other = subprocess.Popen(['sleep', '600'])\n"
    "os.kill(-1, signal.SIGTERM)  # to all but the sender and the first process\n"
    "other.wait()\n"
    "print('still here')"
)


class Echo:
    async def answer(self, query):
        return [Answer(prompt.upper()) for prompt in query.prompts]


def in_docker(**options):
    return Session.open(environment("docker", options), Echo())


def container_of(session):
    return session._kernel._manager.provisioner._container.id


@pytest.mark.elsewhere
@TRANSPORTS
async def test_no_signal_from_inside_ends_the_first_process_of_a_container(docker_engine, transport):
    async with await in_docker(transport=transport) as session:
        cell = await session.run(EVERY_SIGNAL)
        assert (cell.status, cell.stdout) == ("ok", "still here\n")
        assert docker_engine.inspect_container(container_of(session))["State"]["Running"]
        assert (await session.run("llm_query('a')")).value == "'A'"


@pytest.mark.elsewhere
@TRANSPORTS
async def test_a_container_is_still_ended_from_outside(docker_engine, transport):
    async with await in_docker(transport=transport) as session:
        running = asyncio.create_task(session.run("import os, time\nos.kill(1, 15)\ntime.sleep(600)"))
        await asyncio.sleep(1)
        # Long enough that it is the signal which ends it, and not the engine's patience.
        await asyncio.to_thread(docker_engine.stop, container_of(session), timeout=90)
        assert (await running).status == "died"
        await session.restart()
        assert (await session.run("1 + 1")).value == "2"


@pytest.mark.elsewhere
@TRANSPORTS
@pytest.mark.usefixtures("docker_engine")
def test_killing_everything_in_the_container_costs_the_kernel_and_not_the_run(transport):
    kill = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import os; os.kill(-1, 9)'])"
    cells = ["kept = 41", kill, "FINAL(kept + 1)"]
    seen = []

    def reply(messages):
        seen.append(str(messages[-1]))
        return f"```repl\n{cells[len(seen) - 1]}\n```"

    with RLM(ScriptedLM(reply), environment="docker", environment_kwargs={"transport": transport}) as rlm:
        assert rlm.completion("x").response == "42"
    assert "The kernel died" in seen[-1]


@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP", "SIGTERM", "SIGQUIT", "SIGUSR1", "SIGALRM", "SIGKILL"])
def test_a_signal_to_the_watchdog_costs_the_local_kernel_at_most(number):
    replies = [
        "```repl\nkept = 41\n```",
        f"```repl\nimport os, signal, time\nos.kill(os.getppid(), signal.{number})\ntime.sleep(0.5)\n```",
        "```repl\nFINAL(kept + 1)\n```",
    ]
    with RLM(ScriptedLM(replies)) as rlm:
        assert rlm.completion("x").response == "42"


CANCELS = """
import signal
def give_up(*_): raise InterruptedError
signal.signal(signal.SIGALRM, give_up)
for _ in range(200):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try: llm_query('p' * 1_000)
    except InterruptedError: pass
    finally: signal.setitimer(signal.ITIMER_REAL, 0)
FINAL('free of charge')
"""
CHEAP_THEN_DEAR = "llm_query('hi')\nFINAL(len(llm_query_batched(['x' * 50_000] * 16)))"


class PricedLM(ScriptedLM):
    """A model whose prices are known."""

    def reply_limit(self, max_tokens):
        return max_tokens

    def price(self, read, wrote):
        return 1e-6 * read + 1e-6 * wrote


def leads(code):
    return ScriptedLM([Reply(f"```repl\n{code}\n```", "root", Usage(10, 5, cost=0.0))], model="root")


class Counts:
    """Counts the kernels while it is entered."""

    def __enter__(self):
        self.most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._count)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _count(self):
        while not self._over.wait(0.02):
            self.most = max(self.most, len(living_kernels()))


async def test_calls_that_a_cell_gives_up_before_their_answer_are_not_free():
    sub = PricedLM(lambda _: "late", model="sub", delay=600)
    with pytest.raises(BudgetExceededError, match="are an estimate") as raised:
        await RLM(leads(CANCELS), other_backends=[sub], max_budget=0.05).acompletion("x")
    dearest = sub.price(1_544, 16_384)
    assert 0.05 <= raised.value.spent <= 0.05 + dearest
    spent = raised.value.usage.model_usage_summaries["sub"]
    assert spent.total_calls == len(sub.calls) < 20
    assert spent.estimated_cost == pytest.approx(raised.value.estimated) == pytest.approx(raised.value.spent)


async def test_one_cheap_call_opens_no_door_for_dear_ones_at_once():
    def script(messages):
        return Reply("ok", "sub", Usage(len(messages[-1]["content"]), 1))

    sub = ScriptedLM(script, model="sub", delay=0.01)
    with pytest.raises(TokenLimitExceededError) as raised:
        await RLM(leads(CHEAP_THEN_DEAR), other_backends=[sub], max_tokens=1_000).acompletion("x")
    assert raised.value.tokens_used <= 1_000 + 50_001
    assert sub.max_in_flight == 1


async def test_a_wide_and_deep_tree_has_no_more_kernels_than_its_bound():
    code = "n = int(context)\nFINAL(1 + sum(map(int, rlm_query_batched([str(n - 1)] * 2))) if n else 1)"
    lm = ScriptedLM(lambda _: f"```repl\n{code}\n```")
    with Counts() as counted:
        done = await RLM(lm, max_depth=4, max_kernels=4, max_concurrent_subcalls=16).acompletion("3")
    assert done.response == "15"
    assert 2 <= counted.most <= 4


async def test_children_that_wait_for_a_kernel_end_with_the_time():
    code = "FINAL(rlm_query_batched(['sleep'] * 8)) if context == 'go' else __import__('time').sleep(600)"
    rlm = RLM(
        ScriptedLM(lambda _: f"```repl\n{code}\n```"),
        max_depth=2,
        max_kernels=2,
        max_concurrent_subcalls=8,
        max_timeout=8,
    )
    with pytest.raises(TimeoutExceededError):
        await asyncio.wait_for(rlm.acompletion("go"), 60)
    assert living_kernels() == []


async def test_children_that_wait_for_a_kernel_end_when_the_run_is_cancelled():
    started = asyncio.Event()

    def script(messages):
        if len(lm.calls) > 1:
            loop.call_soon_threadsafe(started.set)
        return f"```repl\n{code}\n```"

    code = "FINAL(rlm_query_batched(['sleep'] * 8)) if context == 'go' else __import__('time').sleep(600)"
    loop, lm = asyncio.get_running_loop(), ScriptedLM(script)
    rlm = RLM(lm, max_depth=2, max_kernels=2, max_concurrent_subcalls=8)
    task = asyncio.create_task(rlm.acompletion("go"))
    await asyncio.wait_for(started.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)
    assert len(lm.calls) == 2
    assert living_kernels() == []


TAKES_NOTHING = "get_ipython().kernel.rlm_guest.put = lambda *_: __import__('time').sleep(600)\nFINAL('done')"


def test_a_persistent_kernel_that_takes_no_variable_holds_no_answer_back():
    lm = ScriptedLM([f"```repl\n{cell}\n```" for cell in ("kept = 1\nFINAL(kept)", TAKES_NOTHING, "FINAL(kept + 1)")])
    with RLM(lm, persistent=True, max_timeout=20) as rlm:
        assert rlm.completion("first").response == "1"
        started = time.monotonic()
        assert rlm.completion("second").response == "done"
        assert time.monotonic() - started < 20 + PATIENCE
        assert rlm.completion("third").response == "2"


async def test_output_that_a_slow_reader_of_the_stream_leaves_is_not_kept():
    flood = "for _ in range(400): print('x' * 100_000, flush=True)\nFINAL(1)"
    pieces, finished = [], None
    async for event in RLM(ScriptedLM([f"```repl\n{flood}\n```"])).stream("a context"):
        if isinstance(event, events.CellOutput):
            pieces.append(len(event.output["text"]))
            if len(pieces) == 1:
                await asyncio.sleep(5)
        elif isinstance(event, events.CellFinished):
            finished = event.result
    assert sum(pieces) < 2 * output_queue.MAX_WAITING_CHARACTERS
    assert len(finished.stdout) > 9_000_000
