import ast
import re
from collections import Counter
from pathlib import Path

import pytest
from loopback import MODEL

import rlm_kernel
from rlm_kernel.cli import demo_questions
from rlm_kernel.cli.demo_questions import (
    ENOUGH_CHARACTERS,
    JUDGED,
    QUESTIONS,
    check_judgements,
    check_paths,
    standard_library,
)


@pytest.fixture(scope="module")
def sources():
    return standard_library()


def test_the_scripted_demo_works_and_says_that_it_is_scripted(rlm):
    done = rlm("demo", "--scripted")
    shown, run = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0
    assert "SCRIPTED: no language model is used" in shown
    assert shown.count("✓ right") == 3
    assert "2 of 2 code questions right" in shown
    assert "1 of 1 judgement questions right" in shown
    assert "6 llm_query to scripted-judge" in run
    assert "Traceback" not in run


def test_one_question_can_be_asked_alone(rlm):
    done = rlm("demo", "--scripted", "--question", "2")
    assert done.returncode == 0
    assert done.stdout.decode().count("✓ right") == 1
    assert "1 of 1 code questions right" in done.stdout.decode()


@pytest.mark.parametrize(("question", "code"), [("1", 1), ("3", 0)])
def test_a_wrong_answer_is_called_wrong_and_fails_only_for_a_code_question(rlm, provider, question, code):
    rlm.environment |= provider.environment
    provider.script = ["```repl\nlen(context)\n```", "FINAL(no idea)"]
    done = rlm("demo", "--question", question, "--backend", "openai", "--model", MODEL)
    assert done.returncode == code
    assert "✗ wrong" in done.stdout.decode()
    assert f"0 of 1 {QUESTIONS[int(question) - 1].kind} questions right" in done.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--question", "4"], "from 1 to 3"),
        (["--scripted", "--model", "m"], "--scripted uses no model"),
        (["--backend", "openai"], "--model"),
    ],
)
def test_wrong_usage_is_said_before_anything_starts(rlm, arguments, said):
    done = rlm("demo", *arguments)
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert done.stdout == b""


@pytest.mark.parametrize("own", ["model_path=own.gguf", "base_url=http://127.0.0.1:9/v1"])
def test_with_a_model_of_ones_own_nothing_is_fetched(rlm, own):
    (rlm.folder / "own.gguf").write_bytes(b"no model")
    rlm.environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    done = rlm("demo", "--question", "1", "--no-log", "--backend-kwarg", own)
    assert "The context: the standard library" in done.stdout.decode(), done.stderr.decode()
    assert not (rlm.folder / "cache").exists()


def test_the_context_is_over_ten_million_characters_of_the_library(sources):
    assert sum(map(len, sources.values())) > ENOUGH_CHARACTERS
    assert "json/decoder.py" in sources
    assert not [path for path in sources if "site-packages" in path]


def test_tests_are_taken_only_where_the_rest_is_not_enough(tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "site-packages").mkdir()
    for path in ("a.py", "test/test_a.py", "site-packages/b.py"):
        (tmp_path / path).write_text("x = 1")
    (tmp_path / "bad.py").write_bytes(b"# \xff")
    assert set(standard_library(tmp_path)) == {"a.py", "test/test_a.py"}


def test_the_truths_agree_with_a_plain_walk_over_all_trees(sources):
    classes, functions = set(), Counter()
    for path, source in sources.items():
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name == demo_questions.CLASS:
                classes.add(path)
            functions[path] += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    assert QUESTIONS[0].truth(sources) == classes
    assert QUESTIONS[1].truth(sources) == {p for p, n in functions.items() if n == max(functions.values())}


def test_all_files_with_the_most_functions_are_the_truth():
    sources = {"a.py": "def f(): ...", "b.py": "'def def def'", "c.py": "async def g(): ...", "d.py": "def ("}
    assert QUESTIONS[1].truth(sources) == {"a.py", "c.py"}


def test_the_judged_files_are_in_the_library(sources):
    assert set(JUDGED) <= set(sources)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("concurrent/futures/thread.py", True),
        ("['./concurrent/futures/thread.py']", True),
        ("It is defined in `concurrent/futures/thread.py`.", True),
        ("threading.py", False),
        ("concurrent/futures/thread.py or threading.py", False),
        ("futures/thread.py", False),
        ("", False),
    ],
)
def test_a_path_is_right_if_it_is_the_only_one(answer, right):
    assert check_paths(answer, {"concurrent/futures/thread.py"}).right is right


@pytest.mark.parametrize(
    ("answer", "right", "agree"),
    [
        ("ftplib.py, smtplib.py, poplib.py", True, 6),
        ("['poplib', 'smtplib', 'ftplib']", True, 6),
        ("ftplib.py and smtplib.py", False, 5),
        (", ".join(JUDGED), False, 3),
        ("", False, 3),
    ],
)
def test_judgements_are_counted_one_by_one(answer, right, agree):
    verdict = check_judgements(answer, {"ftplib.py", "smtplib.py", "poplib.py"})
    assert verdict.right is right
    assert verdict.reason.startswith(f"{agree} of 6")


def test_no_prompt_of_the_library_holds_a_question_or_its_answer():
    told = (demo_questions.CLASS, *JUDGED, *(question.text for question in QUESTIONS))
    for file in Path(rlm_kernel.__file__).parent.rglob("*.py"):
        if file.parent.name != "cli":
            text = file.read_text("utf-8")
            strings = [
                n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant) and isinstance(n.value, str)
            ]
            assert not [word for word in told for string in strings if re.search(rf"\b{re.escape(word)}\b", string)], (
                file
            )
