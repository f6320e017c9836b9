"""`llm_query` and its relatives in the notebook itself."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor

import pytest
from loopback import Fails, Hangs

from rlm_kernel.kernel.guest import QueryError
from rlm_magics.queries import Asker

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def asker(provider, settings=None):
    """One that needs no kernel; `settings` are read when something is asked."""
    model = {"backend": "openai", "backend_kwargs": {k: provider.backend_kwargs[k] for k in ("model_name", "base_url")}}
    return Asker(None, lambda: {**model, "other_backends": [], "other_backend_kwargs": [], **(settings or {})})


@pytest.fixture(scope="module", autouse=True)
def _model(notebook):
    notebook.run("%rlm model reader --backend reader")
    yield
    notebook.run("%rlm model '' --backend openai")


def test_a_question_is_answered(notebook):
    assert notebook.value("llm_query('hello')") == "'HELLO'"


def test_budget_tells_the_configured_limits(notebook):
    notebook.run("%rlm config max_calls 7")
    assert notebook.value("budget().calls, budget().tokens") == "(7, None)"
    notebook.run("%rlm config max_calls none")


def test_a_variable_named_budget_stays_when_the_magics_are_loaded(started):
    fresh = started()
    assert fresh.run("budget = 'mine'\n%load_ext rlm_magics").error is None
    assert fresh.value("budget") == "'mine'"


def test_a_batch_keeps_its_order(notebook):
    assert notebook.value("llm_query_batched(['a', 'b', 'c'])") == "['A', 'B', 'C']"


def test_they_can_be_awaited(notebook):
    assert notebook.value("await allm_query('a'), await allm_query_batched(['b', 'c'])") == "('A', ['B', 'C'])"
    assert (
        notebook.value("await __import__('asyncio').gather(*[allm_query(str(n)) for n in range(3)])")
        == "['0', '1', '2']"
    )


def test_threads_may_ask(notebook):
    notebook.run("from concurrent.futures import ThreadPoolExecutor")
    assert notebook.value("list(ThreadPoolExecutor(8).map(llm_query, 'abcdefgh'))") == str(list("ABCDEFGH"))


def test_rlm_query_starts_an_rlm(notebook):
    notebook.run("leads = leader(cell('n = len(context)'), 'FINAL_VAR(n)')\n%rlm model leads --backend leads")
    assert notebook.value("rlm_query('seven..')") == "'7'"
    assert notebook.value("await arlm_query('eight...')") == "'8'"
    notebook.run("%rlm model reader --backend reader")


def test_a_failure_is_raised_and_a_failed_slot_is_marked(notebook):
    notebook.run(
        "def moody(messages):\n"
        "    text = messages[-1]['content']\n"
        "    return LMError('no luck', backend='b', model='m') if text == 'bad' else text\n"
        "moody = ScriptedLM(moody, model='moody')\n"
        "%rlm model moody --backend moody"
    )
    ran = notebook.run("llm_query('bad')")
    assert ran.of("error")[0]["ename"] == "QueryError"
    assert "no luck" in ran.error
    assert notebook.value("llm_query_batched(['good', 'bad'])") == "['good', 'Error: no luck']"
    notebook.run("%rlm model reader --backend reader")


def test_schemas_and_pictures_go_along(notebook, folder):
    (folder / "pixel.png").write_bytes(PIXEL)
    notebook.run("counts = ScriptedLM(lambda m: '{\"n\": ' + str(len(m[-1].get('images', ()))) + '}', model='counts')")
    notebook.run("%rlm model counts --backend counts")
    assert notebook.value("llm_query('how many?', schema={'type': 'object'}, images=['pixel.png'])") == "{'n': 1}"
    notebook.run("%rlm model reader --backend reader")


def test_a_wrong_call_is_an_ordinary_error(notebook):
    assert "llm_query takes text, not int" in notebook.run("llm_query(3)").error
    assert "there is no model 'other'" in notebook.run("llm_query('a', model='other')").error


def test_without_a_model_the_fix_is_named(started):
    fresh = started()
    fresh.run("%load_ext rlm_magics")
    assert "set it for all cells with %rlm model" in fresh.run("llm_query('hello')").error


def test_a_corrected_key_is_taken_up(provider, monkeypatch):
    provider.script = lambda request: "ok" if request.headers["authorization"].endswith("right") else Fails(401)
    ask = asker(provider).names["llm_query"]
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with pytest.raises(QueryError, match="Check the key"):
        ask("?")
    monkeypatch.setenv("OPENAI_API_KEY", "right")
    assert ask("?") == "ok"


def test_threads_that_ask_at_once_and_under_changed_settings_are_all_answered(provider, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "right")
    settings = {"max_iterations": 20}
    provider.script = lambda request: Hangs(then="late") if request.prompt == "slow" else "ok"
    ask = asker(provider, settings).names["llm_query"]
    with ThreadPoolExecutor(9) as pool:
        slow = pool.submit(ask, "slow")
        try:
            provider.wait_for_requests(1)
            for turns in range(5):
                settings["max_iterations"] = turns + 1
                assert list(pool.map(ask, "abcdefgh")) == ["ok"] * 8
        finally:
            provider.release()
        assert slow.result() == "late"


def test_an_interrupt_ends_a_question(notebook):
    notebook.run("hang = ScriptedLM(lambda messages: 'late', model='hang', delay=600)\n%rlm model hang --backend hang")
    ran = notebook.run(
        "print('asking', flush=True)\nllm_query('?')",
        when=lambda content: "asking" in str(content.get("text")),
        then=notebook.manager.interrupt_kernel,
    )
    assert ran.of("error")[0]["ename"] == "KeyboardInterrupt"
    notebook.run("%rlm model reader --backend reader")
