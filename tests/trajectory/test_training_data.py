"""Recorded runs as training data: which messages a line has, what is trained on, and a real chat template."""

import json
import struct

import jinja2
import pytest

from rlm import RLM
from rlm.logger import RLMLogger
from rlm_kernel import cli
from rlm_kernel.clients.llamacpp.weights import QWEN_CODER, cache_folder
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.trajectory.runs.notes import annotate
from rlm_kernel.trajectory.training_data import Selection, lines_of

LOOK, FAIL = "I look.\n```repl\nprint(len(context))\n```", "Now <|a|> mistake.\n```repl\n1 / 0\n```"
CHILD = "```repl\nanswer['content'] = rlm_query('below')\nanswer['ready'] = True\n```"
IN_CHILD = "```repl\nanswer['content'] = 'from below'\nanswer['ready'] = True\n```"
# What the template of Qwen2.5 does with messages without tools; the real one is in the `full` test.
QWEN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of each conversation, of which one has failed."""
    logs = tmp_path_factory.mktemp("logs")
    for prompts in ("large", "rlm-qwen3-8b", "rlm-qwen3-30b-a3b"):
        lm = ScriptedLM([LOOK, FAIL, CHILD, IN_CHILD])
        RLM(lm, prompts=prompts, max_depth=2, logger=RLMLogger(str(logs), prompts)).completion("text", "How many?")
    with pytest.raises(RuntimeError):
        RLM(ScriptedLM([LOOK, RuntimeError("gone")]), logger=RLMLogger(str(logs), "broken")).completion("text", "Why?")
    return logs


def log_of(folder, name):
    (log,) = (path for path in folder.glob(f"{name}*.jsonl") if ".events." not in path.name)
    return log


def weights(line):
    return [message.get("weight") for message in line["messages"]]


def test_each_reply_is_one_line_after_what_it_was_written_from(folder):
    first, second, third, child = lines_of(log_of(folder, "large"))
    assert [line["completion"] for line in (first, second, third, child)] == [
        [{"role": "assistant", "content": text}] for text in (LOOK, FAIL, CHILD, IN_CHILD)
    ]
    assert second["prompt"][: len(first["prompt"]) + 1] == first["prompt"] + first["completion"]
    assert "ZeroDivisionError" in third["prompt"][-1]["content"]
    assert "below" in child["prompt"][-1]["content"]


def test_a_run_that_is_one_conversation_is_one_line_and_its_children_have_others(folder):
    run, child = lines_of(log_of(folder, "rlm-qwen3-30b"), per="run")
    assert weights(run) == [None, None, None, 1, None, None, 1, None, None, 1]
    assert weights(child)[-1] == 1


def test_a_conversation_in_which_messages_do_not_stay_is_a_line_a_turn_and_each_reply_is_trained_on_once(folder):
    lines = list(lines_of(log_of(folder, "rlm-qwen3-8b"), per="run", selection=Selection(children=False)))
    assert [weights(line) for line in lines] == [
        [None, 0, None, 1],
        [None, 0, 0, None, None, 1],
        [None, 0, 0, None, 0, None, None, 1],
    ]


def test_replies_whose_code_raised_can_be_left_out(folder):
    selection = Selection(without_errors=True, children=False)
    assert FAIL not in [line["completion"][0]["content"] for line in lines_of(folder, selection=selection)]
    (run,) = lines_of(log_of(folder, "large"), per="run", selection=selection)
    assert [weight for weight in weights(run) if weight is not None] == [1, 0, 1]


def test_runs_are_chosen_by_how_they_ended_and_by_what_people_say_of_them(folder):
    names = {line["rlm"]["run"].partition("_")[0] for line in lines_of(folder, metadata=True)}
    assert names == {"large", "rlm-qwen3-8b", "rlm-qwen3-30b-a3b", "broken"}
    answered = {line["rlm"]["run"] for line in lines_of(folder, selection=Selection(state="answered"), metadata=True)}
    assert len(answered) == 3
    annotate(log_of(folder, "large"), thumb="up", add_tags=["good"])
    for chosen in (Selection(thumb="up"), Selection(tags=("good",))):
        assert {line["rlm"]["thumb"] for line in lines_of(folder, selection=chosen, metadata=True)} == {"up"}
    assert list(lines_of(folder, selection=Selection(tags=("good", "other")))) == []


def test_the_command_writes_a_folder_and_leaves_out_what_is_no_log(folder, tmp_path, capsys):
    (folder / "strange.jsonl").write_text('{"type": "metadata"}\n[]\n')
    output = tmp_path / "data.jsonl"
    args = ["export", str(folder), "--to", "sft", "--only", "answered", "--no-children", "-o", str(output)]
    assert cli.main(args) == 0
    (folder / "strange.jsonl").unlink()
    assert len([json.loads(line) for line in output.read_text().splitlines()]) == 9
    assert "strange.jsonl is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--to", "sft", "-o", "FOLDER/data.jsonl"], "would be taken for a log"),
        (["--to", "sft", "--clean"], "does not go with"),
        (["--per", "run"], "belongs to --to sft"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder, args, says, capsys):
    log = log_of(folder, "large")
    assert cli.main(["export", str(log), *(arg.replace("FOLDER", str(folder)) for arg in args)]) != 0
    assert says in capsys.readouterr().err


def check_masks(lines, template):
    """A trainer masks the tokens of the prompt, rendered with the beginning of the reply, and trains on the rest."""

    def render(messages, **more):
        return template.render(messages=messages, **more)

    for line in lines:
        prompt = render(line["prompt"], add_generation_prompt=True)
        whole = render(line["prompt"] + line["completion"], add_generation_prompt=False)
        assert whole.startswith(prompt)
        assert whole[len(prompt) :].rstrip("\n") == line["completion"][0]["content"] + "<|im_end|>"


def test_the_trained_text_is_the_reply_and_its_end_in_a_chat_template(folder):
    check_masks(lines_of(folder), jinja2.Environment().from_string(QWEN))


@pytest.mark.full
def test_the_trained_text_is_the_reply_and_its_end_in_the_template_of_a_real_model(folder):
    path = cache_folder() / QWEN_CODER.file
    if not path.is_file():
        pytest.skip("`rlm demo` fetches the model")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    lines = list(lines_of(folder))
    assert len(lines) == 13
    check_masks(lines, environment.from_string(chat_template(path)))


def chat_template(path):
    """The chat template in the metadata of a GGUF file."""
    with path.open("rb") as file:
        head = file.read(20_000_000)
    place = head.index(b"tokenizer.chat_template") + len(b"tokenizer.chat_template")
    kind, length = struct.unpack_from("<IQ", head, place)
    assert kind == 8, "a text"
    return head[place + 12 : place + 12 + length].decode()
