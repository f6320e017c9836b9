"""An answer by schema from the model: a cell asks it, and the server lets it write nothing that does not fit."""

from rlm import RLM, ScriptedLM
from rlm_kernel.clients.llamacpp.weights import QWEN_CODER

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "city": {"type": "string"},
        "year": {"type": "integer"},
        "field": {"enum": ["science", "music", "sport"]},
    },
    "required": ["name", "city", "year", "field"],
    "additionalProperties": False,
}
CELL = f"""```repl
person = llm_query("Who is this about?\\n\\n" + context, schema={PERSON})
FINAL({{**person, "year": person["year"] + 100}})
```"""


def test_the_model_answers_a_cell_by_schema(model):
    with RLM(
        ScriptedLM([CELL]), other_backends=["llamacpp"], other_backend_kwargs=[{"base_url": model.base_url}]
    ) as rlm:
        text = "Marie Curie was a physicist and chemist. She was born in Warsaw in 1867."
        result = rlm.completion(text, response_schema=PERSON)
    assert result.parsed == {"name": "Marie Curie", "city": "Warsaw", "year": 1967, "field": "science"}
    assert result.usage_summary.model_usage_summaries[QWEN_CODER.name].total_calls == 1
