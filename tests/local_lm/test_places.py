"""The real model answers a question, with its cells and its sub-call, in each place that is not of the host itself."""

import pytest
from places import provided

from rlm import RLM

pytestmark = [pytest.mark.full, pytest.mark.timeout(300), pytest.mark.usefixtures("real_model")]

LINES = [f"{'ERROR' if n % 7 == 3 else 'INFO'} request {n}" for n in range(1_000)]
QUESTION = "How many lines of the context contain the word ERROR?"


@pytest.mark.parametrize("name", ["bwrap", "landlock", "jupyter", "ssh"])
def test_the_real_model_counts_lines(name, request):
    environment, options = provided(name, request)
    with RLM("llamacpp", environment=environment, environment_kwargs=options, max_iterations=8) as rlm:
        completion = rlm.completion("\n".join(LINES), QUESTION)
    assert str(sum("ERROR" in line for line in LINES)) in completion.response
