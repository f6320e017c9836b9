"""From variables and options to the arguments of a run, without a kernel."""

from __future__ import annotations

import shlex
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from rlm import ScriptedLM
from rlm_kernel.errors import ConfigError
from rlm_kernel.values import convert
from rlm_magics import notebook_inputs
from rlm_magics.arguments import fingerprint, merge_settings, rlm_arguments
from rlm_magics.grammar import cell_grammar, setting_of
from rlm_magics.settings import Settings, change, values

TABLE = pd.DataFrame(
    {
        "month": ["May", "June"],
        "day": pd.to_datetime(["2026-05-01", None]),
        "sold": [3, 4],
        "price": [0.1, float("nan")],
        "kind": pd.Categorical(["a", "b"]),
    }
)
RECORDS = [
    {"month": "May", "day": "2026-05-01T00:00:00", "sold": 3, "price": 0.1, "kind": "a"},
    {"month": "June", "day": None, "sold": 4, "price": None, "kind": "b"},
]


class Alike(ScriptedLM):
    def __repr__(self):
        return "a model"


def arguments(line, **settings):
    named = {**values(Settings()), "backend": "llamacpp", **settings}
    return rlm_arguments(merge_settings(named, cell_grammar().read(line)), {})


def test_a_table_is_a_list_of_records_where_pandas_may_be_missing():
    read = notebook_inputs.read(["sales"], [], {"sales": TABLE}, "docker")
    assert read.prompt == RECORDS
    (note,) = read.notes
    assert note == "The model gets sales as a list of records, because the environment 'docker' may not have pandas."


def test_an_index_with_a_meaning_becomes_a_column():
    read = notebook_inputs.read(["sales"], [], {"sales": TABLE[["month", "sold"]].set_index("month")}, "docker")
    assert read.prompt == [{"month": "May", "sold": 3}, {"month": "June", "sold": 4}]


def test_a_table_stays_one_in_the_python_of_the_notebook():
    read = notebook_inputs.read(["sales"], [], {"sales": TABLE}, "local")
    assert read.prompt["sales"] is TABLE


def test_an_option_that_is_zero_is_not_forgotten():
    assert arguments("--max-depth 0 --max-iterations 3")["max_depth"] == 0


def test_a_cell_goes_before_the_settings():
    wanted = arguments("--max-iterations 3 --backend-kwarg n_ctx=4096", max_iterations=9, max_tokens=7)
    assert (wanted["max_iterations"], wanted["max_tokens"]) == (3, 7)
    assert wanted["backend_kwargs"] == {"n_ctx": 4096}


def test_what_is_set_for_one_backend_or_environment_is_not_given_to_another():
    mine = {"backend": "openai", "model": "gpt-5", "base_url": "http://x", "backend_kwargs": {"timeout": 3}}
    wanted = arguments("-b llamacpp -e docker", **mine, environment_kwargs={"memory": "2g"})
    assert wanted["backend_kwargs"] == {}
    assert wanted["environment_kwargs"] == {}


def test_another_backend_or_environment_forgets_what_was_set_for_the_one_before():
    mine = {"model": "m", "base_url": "http://x", "backend_kwargs": {"timeout": 3}, "sub_model": "s"}
    known = Settings(backend="vllm", environment_kwargs={"memory": "2g"}, max_tokens=7, **mine)
    change(known, "backend", "vllm")
    change(known, "environment", "local")
    assert (known.base_url, known.environment_kwargs) == ("http://x", {"memory": "2g"})
    change(known, "backend", "anthropic")
    change(known, "environment", "docker")
    changed = {"backend": "anthropic", "environment": "docker", "max_tokens": 7}
    assert values(known) == {**values(Settings()), **changed}


def test_another_key_endpoint_or_model_object_makes_another_rlm(monkeypatch):
    wanted = arguments("", backend="openai", model="m")
    prints = [fingerprint(wanted)]
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(variable, "http://x")
        prints.append(fingerprint(wanted))
    prints += [fingerprint({**wanted, "backend": lm}) for lm in (Alike(["x"]), Alike(["y"]))]
    assert len(set(prints)) == 5
    monkeypatch.setenv("ANTHROPIC_API_KEY", "of nobody here")
    assert fingerprint(wanted) == prints[2]


def test_a_sub_model_of_the_same_backend_lives_at_the_same_endpoint():
    mine = {"backend": "vllm", "model": "large", "base_url": "http://x/v1"}
    wanted = arguments("--sub-model small", **mine)
    assert wanted["other_backends"] == ["vllm"]
    assert wanted["other_backend_kwargs"] == [{"model_name": "small", "base_url": "http://x/v1"}]


def test_a_pair_without_a_sign_names_its_option():
    with pytest.raises(ConfigError, match="--environment-kwarg takes KEY=VALUE"):
        arguments("--environment-kwarg memory")


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        ("", ("", "", False)),
        ("--save", ("", "", True)),
        ("model", ("model", "", False)),
        ("model gpt-5 --save", ("model", "gpt-5", True)),
        ("backend_kwargs {'a': 'b c'}", ("backend_kwargs", "{'a': 'b c'}", False)),
        ("max_tokens = 5", ("max_tokens", "5", False)),
    ],
)
def test_a_setting_is_the_rest_of_the_line(line, setting):
    assert setting_of(line) == setting


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ("-c table.month.tolist()", ["May", "June"]),
        ("-c {'a':text}", {"a": "some text"}),
        ("-c {'a': text, 'b': [1]}", {"a": "some text", "b": [1]}),
        ("-c \"{'a': text}\"", {"a": "some text"}),
        ("-c table['month'][0]", "May"),
        ("-c text[:4]", "some"),
        ("-c text.upper() -c text", {"text.upper()": "SOME TEXT", "text": "some text"}),
        ("-c notes=text", {"notes": "some text"}),
        ("-c first=table['month'][0] -c text", {"first": "May", "text": "some text"}),
        ("-c [word.upper() for word in text.split()]", ["SOME", "TEXT"]),
    ],
)
def test_an_expression_is_an_input_with_or_without_a_name(line, prompt):
    names = {"table": TABLE, "text": "some text"}
    assert notebook_inputs.read(cell_grammar().read(line).context, [], names, "docker").prompt == prompt


@pytest.mark.parametrize(
    ("value", "prompt"),
    [
        (range(3), [0, 1, 2]),
        ({"a": 1}.values(), [1]),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (pa.chunked_array([[1], [None]]), [1, None]),
        (memoryview(b"text"), "text"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_collection_is_given_whole(value, prompt):
    assert notebook_inputs.read(["it"], [], {"it": value}, "docker").prompt == prompt


@pytest.mark.parametrize("value", [TABLE.day, TABLE.columns, TABLE.kind.unique(), TABLE.sold.array], ids=type)
def test_a_series_and_what_is_like_one_is_a_series_with_all_its_values(value):
    prompt = notebook_inputs.read(["table.it"], [], {"table": SimpleNamespace(it=value)}, "docker").prompt
    pd.testing.assert_series_equal(prompt["table.it"], pd.Series(value))
    assert convert(prompt)


@pytest.mark.parametrize("value", [5, object(), iter([1]), pl.LazyFrame({"a": [1]}), TABLE.groupby("sold")], ids=type)
def test_no_advice_leaves_data_out(value):
    with pytest.raises(ConfigError, match=r"--context it .*: give (?!str\(it\))") as raised:
        notebook_inputs.read(["it"], [], {"it": value}, "local")
    assert isinstance(value, int) or "str(" not in str(raised.value)


@pytest.mark.parametrize("line", ["--file 'a (b).txt'", "--file a(b.txt", '--backend-kwarg key="a b"', "-m 'it''s'"])
def test_brackets_and_quotes_of_other_options_are_those_of_a_shell(line):
    assert vars(cell_grammar().read(line)) == vars(cell_grammar().parse_known_args(shlex.split(line))[0])


@pytest.mark.parametrize("value", [pl.DataFrame({"a": [1]}), pa.table({"a": [1]}), np.zeros(2)], ids=type)
def test_a_table_of_another_library_and_an_array_stay_what_they_are(value):
    assert notebook_inputs.read(["it"], [], {"it": value}, "docker").prompt["it"] is value
