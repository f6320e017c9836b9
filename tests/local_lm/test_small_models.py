"""A model of 1.5 billion parameters behind `backend="openai"`, without `prompts`: code runs in its first turns."""

from __future__ import annotations

import pytest

from rlm import RLM, NoAnswerError
from rlm.logger import RLMLogger
from rlm_kernel.prompts import SMALL
from rlm_kernel.trajectory.log.reader import read_log

pytestmark = pytest.mark.timeout(600)

LINES = "\n".join(f"{n:03d} The ship left the harbour with {n % 7} sacks of grain." for n in range(60))
TEXT = LINES.replace("031 The", "031 The password of the east gate is 'marigold-77'. The")
ORDERS = [{"id": n, "city": ("Lyon", "Porto", "Ghent")[n * n % 3], "amount": 13 * n % 101} for n in range(50)]
STOCK = {f"item-{n:03d}": {"price": 7 * n % 90, "count": n % 20} for n in range(80)}
ASKED = [
    pytest.param(TEXT, "What is the password of the east gate?", "marigold-77", id="text"),
    pytest.param(ORDERS, "How many orders come from Lyon?", "17", id="records"),
    pytest.param(STOCK, "What is the price of item-071?", "47", id="dict"),
]


def first_code(model, folder, context, question):
    """The answer, if there is one, and the first turn in which code of the model ran."""
    kwargs = {"model_name": "qwen-coder", "base_url": model.base_url, "api_key": "EMPTY"}
    with RLM("openai", kwargs, max_iterations=6, logger=RLMLogger(folder)) as rlm:
        try:
            answer = rlm.completion(context, question).response
        except NoAnswerError:
            answer = None
    (log,) = folder.glob("*.events.jsonl")
    cells = [(turn.iteration, cell.code) for turn in read_log(log).trajectory.turns for cell in turn.cells]
    return answer, next(iteration for iteration, code in cells if code != SMALL.setup_code)


@pytest.mark.parametrize(("context", "question", "answer"), ASKED)
def test_where_the_server_says_its_size_code_runs_in_the_first_turn(model, tmp_path, context, question, answer):
    model.models = [{"id": "qwen-coder", "meta": {"n_params": 1_777_088_000}}]
    given, turn = first_code(model, tmp_path, context, question)
    assert answer in given
    assert turn == 1


@pytest.mark.parametrize(("context", "question"), [pytest.param(*each.values[:2], id=each.id) for each in ASKED])
def test_where_it_does_not_code_runs_in_one_of_the_first_three_turns(model, tmp_path, context, question):
    model.models = [{"id": "qwen-coder"}]
    _, turn = first_code(model, tmp_path, context, question)
    assert turn <= 3
