"""The conversations of models that were trained to be RLMs, and the reference's words from a copy of it."""

import pytest

from rlm_kernel.errors import ConfigError
from rlm_kernel.parsing.marked import marked_blocks
from rlm_kernel.prompts import PROFILES, trained_for, trained_profile
from rlm_kernel.prompts.context_preview import describe
from rlm_kernel.prompts.layout import cut, fill, output_of
from rlm_kernel.prompts.reference import reference_profile
from rlm_kernel.types import CellError, CellReport, CellResult

PROMPTS = '''
import textwrap
raise SystemExit("this file is not executed")
RLM_SYSTEM_PROMPT = textwrap.dedent("""Rules with {{braces}}.{custom_tools_section}""")
ORCHESTRATOR_ADDENDUM = "\\n\\n".join(["One.", ("Two, " "three.")])
USER_PROMPT = "Step {iter_1} of {max_iter}"
def build_rlm_system_prompt(query_metadata, root_prompt):
    metadata_body = (f"A {query_metadata.context_type} of {query_metadata.context_total_length}. " "So much.")
    metadata_prompt = f"Asked: {root_prompt}\\n{metadata_body}"
def build_user_prompt(iteration):
    safeguard = "Look. "
'''
FIRST = '''
RLM_SYSTEM_PROMPT = """Old rules with {{braces}}."""
USER_PROMPT = "Act."
USER_PROMPT_WITH_ROOT = 'Act on "{root_prompt}".'
def build_rlm_system_prompt(context_type, context_total_length, context_lengths):
    metadata_prompt = f"{context_type} {context_total_length} {context_lengths}"
def build_user_prompt(iteration, root_prompt):
    if iteration == 0:
        safeguard = "Look. "
        prompt = safeguard + USER_PROMPT
    else:
        prompt = "Before: " + USER_PROMPT
'''
LOOP = """
class RLM:
    def _default_answer(self, history):
        return history + [{"role": "assistant", "content": "Say it."}]
"""


@pytest.fixture
def copy(tmp_path):
    """Makes a folder like the reference's package, in words of ours."""

    def make(prompts=PROMPTS, loop=LOOP):
        for name, text in (("rlm/utils/prompts.py", prompts), ("rlm/core/rlm.py", loop)):
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return make


def opening(profile, context="abc", question="Why {turn}?", **options):
    messages = profile.opening(describe(context), question, context, **options)
    return [(message["role"], message["content"]) for message in messages]


@pytest.mark.parametrize("place", ["", "rlm", "rlm/utils", "rlm/utils/prompts.py"])
def test_the_words_of_a_copy_are_read_and_its_code_is_not_run(copy, place):
    profile = reference_profile(copy() / place)
    assert opening(profile, max_iterations=5) == [
        ("system", "Rules with {braces}.\n\nOne.\n\nTwo, three."),
        ("user", "Asked: Why {turn}?\nA str of 3. So much."),
        ("user", "Look. Step 1 of 5"),
    ]
    assert profile.kept_before(2, 5, "Why?") == [{"role": "user", "content": "Step 2 of 5"}]
    assert profile.sent_with(2, 5, "Why?") == []
    assert profile.reply_tokens is None
    assert profile.closed([], "Why?", by_schema=False) == [{"role": "assistant", "content": "Say it."}]


def test_the_first_version_has_the_facts_of_the_assistant_and_a_message_that_does_not_stay(copy):
    profile = reference_profile(copy(FIRST))
    assert opening(profile, ["a", "bc"]) == [
        ("system", "Old rules with {{braces}}."),  # it was never formatted
        ("assistant", "list 3 [1, 2]"),
    ]
    assert profile.sent_with(1, 5, "Why?") == [{"role": "user", "content": 'Look. Act on "Why?".'}]
    assert profile.sent_with(2, 5, "Why?") == [{"role": "user", "content": 'Before: Act on "Why?".'}]
    assert profile.sent_with(2, 5, "") == [{"role": "user", "content": "Before: Act."}]
    assert profile.kept_before(2, 5, "Why?") == []


@pytest.mark.parametrize(
    ("prompts", "loop", "says"),
    [
        ("x = (", LOOP, "is not Python"),
        ("x = 1", LOOP, "it has no function build_rlm_system_prompt"),
        (PROMPTS.replace("USER_PROMPT", "OTHER"), LOOP, "it has no text USER_PROMPT"),
        (PROMPTS.replace("{root_prompt}", "{open('/etc/passwd').read()}"), LOOP, "which is not known"),
        (PROMPTS.replace("{root_prompt}", "{root_prompt!r:>9}"), LOOP, "which is not known"),
        (PROMPTS.replace('safeguard = "Look. "', "safeguard = look()"), LOOP, "is not a text"),
        (PROMPTS, "x = 1", "it has no function _default_answer"),
        (PROMPTS + "#" * 1_000_001, LOOP, "more than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_not_the_reference_is_refused_with_what_it_lacks(copy, prompts, loop, says):
    with pytest.raises(ConfigError, match=r"(?s)prompts\.py.*|rlm\.py.*") as refused:
        reference_profile(copy(prompts, loop))
    assert says in str(refused.value)


def test_a_missing_copy_a_packed_wheel_and_a_lone_file_say_what_to_do(copy, tmp_path):
    with pytest.raises(ConfigError, match="pip download"):
        reference_profile(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="zipfile -e"):
        reference_profile(tmp_path / "rlms-0.1.3-py3-none-any.whl")
    (copy() / "rlm/core/rlm.py").unlink()
    with pytest.raises(ConfigError, match="name the folder that holds both"):
        reference_profile(tmp_path)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("mit-oasys/rlm-qwen3-8b-v0.1", "rlm-qwen3-8b"),
        ("RLM-Qwen3-8B-v0.1-Q4_K_M.gguf", "rlm-qwen3-8b"),
        ("mit-oasys/rlm-qwen3-30b-a3b-v0.1", "rlm-qwen3-30b-a3b"),
        ("qwen3-8b", None),
        ("gpt-5", None),
    ],
)
def test_the_profile_is_chosen_by_the_name_of_the_model(model, name):
    assert getattr(trained_for(model), "name", None) == name


def test_the_profiles_of_trained_models_tell_whose_words_they_are():
    for name in ("rlm-qwen3-8b", "rlm-qwen3-30b-a3b"):
        assert "reference:PATH" in trained_profile(name).notice
    assert not any(profile.notice for profile in PROFILES.values())


def result(code, stdout="", stderr="", error=None, **variables):
    streams = (("stdout", stdout), ("stderr", stderr))
    outputs = tuple({"output_type": "stream", "name": n, "text": text} for n, text in streams if text)
    status = "error" if error else "ok"
    return CellResult(code, status, outputs, error, CellReport(variables=variables))


def test_each_block_has_a_message_of_its_own_or_all_have_one(copy):
    results = [result("a", "1\n"), result("b", "2\n")]
    more = {"iteration": 1, "max_iterations": 3}
    first, second = trained_profile("rlm-qwen3-8b").after(results, **more)
    assert first.startswith("Code executed:\n```python\na\n```\n\nREPL output:\n\n1\n")
    assert "python\nb\n" in second
    (both,) = trained_profile("rlm-qwen3-30b-a3b").after(results, **more)
    assert both.startswith("REPL output (block 1):\n\n1\n")
    assert "\n\nREPL output (block 2):\n\n2\n" in both
    assert trained_profile("rlm-qwen3-8b").after([], **more) == ()


def test_an_output_has_the_error_in_one_line_and_variables_of_simple_types():
    error = CellError("SyntaxError", "invalid syntax (1234567.py, line 2)", "a long traceback")
    shown = output_of(result("x", "out\n", "err\n", error, n="int", frame="DataFrame", my_context="str"), ("context",))
    assert shown == (
        "\nout\n\n\n\nerr\n\nSyntaxError: invalid syntax (<string>, line 2)\n\nREPL variables: ['context', 'n']\n"
    )
    assert output_of(result("x"), ()) == "No output"


def test_long_output_is_cut_at_the_end():
    assert cut("a" * 10, 10) == "a" * 10
    assert cut("a" * 12, 10) == "a" * 10 + "... + [2 chars...]"


def test_what_fills_a_field_is_not_read_as_a_template():
    assert fill("{a} {b} {c}", a="{b}", b="2") == "{b} 2 {c}"


@pytest.mark.parametrize(
    ("reply", "blocks"),
    [
        ("x\n```repl\na\n```\n```python\nb\n```\n```repl  \n\n  c\n```", ("a", "c")),
        ("```repl\nopen", ()),
        ("```repl\n```", ()),
        ("```repl\n\n```", ("",)),
        ("```repl\n```\na\n```", ("```\na",)),  # the reference's reading
        ("no code", ()),
    ],
)
def test_only_blocks_that_are_marked_as_repl_are_code(reply, blocks):
    assert marked_blocks(reply) == blocks
