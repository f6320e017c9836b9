"""Tables, arrays and other values as contexts: they arrive as what they are, or an error says why not."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import socket
import sys
import types
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from re import RegexFlag

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import rlm
from rlm_kernel.clients.scripted import ScriptedLM
from rlm_kernel.errors import ConfigError
from rlm_kernel.kernel.guest import decoding
from rlm_kernel.kernel.protocol import encode
from rlm_kernel.trajectory import events
from rlm_kernel.values import convert

BERLIN = pd.date_range("2026-03-28", periods=3, tz="Europe/Berlin")


def arrived(value):
    """A value as a kernel gets it."""
    encoding, content = encode(convert(value))
    return decoding.decode(encoding, memoryview(content))


FRAMES = {
    "numbers and texts": pd.DataFrame({"a": [1, 2], "b": [1.5, None], "c": ["x", None], "d": [True, False]}),
    "dates": pd.DataFrame({"day": pd.to_datetime(["2026-01-02", None]), "took": pd.to_timedelta([1, 2], "min")}),
    "a time zone": pd.DataFrame({"at": BERLIN}),
    "categories": pd.DataFrame({"c": pd.Categorical(["b", "a", None], ["b", "a", "z"], ordered=True)}),
    "nullable": pd.DataFrame({"n": pd.array([1, None], "Int64"), "s": pd.array(["x", None], "string")}),
    "an index": pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="key")),
    "dates as index": pd.DataFrame({"a": [1, 2, 3]}, index=BERLIN),
    "levels": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["l", "m"])),
    "levels of rows": pd.DataFrame({"v": [1, 2, 3]}, index=pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)])),
    "a name twice": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "objects": pd.DataFrame({"o": [{"k": [1]}, b"bytes"], "d": [Decimal("1.5"), dt.date(2026, 1, 2)]}),
    "no rows": pd.DataFrame({"a": pd.Series([], dtype="float64")}),
    "nothing": pd.DataFrame(),
    "small numbers": pd.DataFrame({"a": np.array([1, 2], "int8"), "b": np.array([1, 2], "float32")}),
}


@pytest.mark.parametrize("table", FRAMES.values(), ids=FRAMES)
def test_a_dataframe_arrives_as_it_is(table):
    pd.testing.assert_frame_equal(arrived(table), table, check_freq=False)
    for name in table.columns if table.columns.is_unique else ():
        pd.testing.assert_series_equal(arrived(table[name]), table[name], check_freq=False)


def texts(column):
    return [None if value is None else str(value) for value in column]


BINS = pd.cut([1, 2, 3], 2)
AS_TEXT = {
    "bins": pd.DataFrame({"b": BINS}),
    "intervals": pd.DataFrame({"b": pd.interval_range(0, 3)}),
    "lists of Arrow": pd.DataFrame({"b": pd.Series([[1], [2]], dtype=pd.ArrowDtype(pa.list_(pa.int64())))}),
    "functions": pd.DataFrame({"b": [len, 1]}),
}


@pytest.mark.parametrize("table", AS_TEXT.values(), ids=AS_TEXT)
def test_what_a_column_holds_and_cannot_be_sent_arrives_as_text_with_a_warning(table):
    with pytest.warns(UserWarning, match=r"in a table cannot be sent to a kernel and arrives there as text"):
        got = arrived(table)
    assert texts(got["b"]) == texts(table["b"])


def test_bins_keep_their_order_and_may_be_an_index():
    with pytest.warns(UserWarning, match="a column of the type interval"):
        got, sums = arrived(
            [pd.DataFrame({"b": BINS}), pd.DataFrame({"x": [1, 2, 3]}).groupby(BINS, observed=False).sum()]
        )
    assert got["b"].dtype.ordered
    assert list(got["b"].cat.categories) == texts(BINS.categories)
    assert sums["x"].to_dict() == {str(BINS.categories[0]): 3, str(BINS.categories[1]): 3}


def test_a_table_in_a_table_arrives_as_it_is():
    inner = pd.DataFrame({"a": [1]})
    pd.testing.assert_frame_equal(arrived(pd.DataFrame({"o": [inner, 2]}))["o"][0], inner)


def test_dates_as_index_keep_their_frequency():
    months = pd.DataFrame({"n": [1, 2, 3]}, index=pd.date_range("2026-01-31", periods=3, freq="ME"))
    pd.testing.assert_frame_equal(arrived(months), months)


def test_a_masked_array_arrives_masked():
    for masked in (
        np.ma.array([1, 999999], mask=[0, 1]),
        np.ma.array([[1.5, 2.0]]),
        np.ma.array([(1, 2.0)], mask=[(0, 1)], dtype=[("a", "i4"), ("b", "f8")]),
    ):
        got = arrived([masked])[0]
        assert isinstance(got, np.ma.MaskedArray)
        assert got.dtype == masked.dtype
        assert got.tolist() == masked.tolist()


@pytest.mark.parametrize("align", [False, True])
def test_a_structured_array_arrives_with_the_names_of_its_fields(align):
    fields = np.dtype([("a", "i1"), ("b", "f8"), ("c", [("d", "M8[s]")]), ("e", "<i2", (2,))], align=align)
    array = np.array([(1, 2.0, ("2026-01-02",), (3, 4))], dtype=fields)
    got = arrived(array)
    assert got.dtype.names == fields.names
    assert repr(got.tolist()) == repr(array.tolist())
    assert got["c"]["d"] == array["c"]["d"]
    assert arrived(array[0])["b"] == 2.0


def test_tables_of_other_libraries_arrive_as_they_are():
    table = pl.DataFrame({"n": [1, None], "at": [dt.datetime(2026, 1, 2, tzinfo=dt.UTC), None], "l": [[1, 2], []]})
    assert arrived(table).equals(table)
    assert arrived(table["n"]).equals(table["n"])
    arrow = pa.table({"n": [1, 2], "s": pa.array(["x", None]).dictionary_encode()})
    assert arrived(arrow).equals(arrow)
    assert arrived(arrow.to_batches()[0]).equals(arrow.to_batches()[0])


@pytest.mark.parametrize("dtype", ["float64", "int8", "bool", "complex64", "datetime64[s]", "<U3", ">i4"])
def test_an_array_arrives_as_it_is(dtype):
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    got = arrived({"deep": [array]})["deep"][0]
    assert got.dtype == array.dtype
    assert (got == array).all()


def test_bytes_numbers_of_numpy_and_plain_values_arrive_as_they_are():
    value = {"b": b"\0\xff", "t": (1, {2}), "d": dt.date(2026, 1, 2), "n": np.float64(1.5), 3: Decimal(1)}
    got = arrived(value)
    assert got == value
    assert type(got["n"]) is np.float64
    assert arrived(bytearray(b"x")) == b"x"
    plain = {"rows": [[1, "two"]]}
    assert convert(plain)["rows"][0] is plain["rows"][0]


def test_no_object_of_a_library_is_in_what_is_sent():
    sent = encode(convert({"t": FRAMES["numbers and texts"], "a": np.zeros(2)}))[1]
    assert b"pandas.core" not in sent
    assert b"numpy.core" not in sent
    assert b"_reconstruct" not in sent


@pytest.fixture
def bare(monkeypatch):
    """A kernel without these libraries."""
    monkeypatch.setattr(decoding, "MISSING", set())

    def missing(name):
        if name.partition(".")[0] in {"pandas", "polars", "pyarrow", "numpy"}:
            raise ImportError(name)
        return types.ModuleType(name)

    monkeypatch.setattr(decoding.importlib, "import_module", missing)
    return decoding.MISSING


def test_a_kernel_without_the_library_gets_records(bare):
    dated = pd.DataFrame({"n": [1, 2], "at": pd.to_datetime(["2026-01-02", None])}, index=["x", "y"])
    assert arrived(dated) == [
        {"index_0": "x", "n": 1, "at": "2026-01-02T00:00:00"},
        {"index_0": "y", "n": 2, "at": None},
    ]
    assert arrived(pl.DataFrame({"a": [1]})) == arrived(pa.table({"a": [1]})) == [{"a": 1}]
    assert arrived(pd.Series([1, 2])) == arrived(np.array([1, 2])) == [1, 2]
    assert arrived(np.zeros((2, 2), ">f8".replace(">", "<"))) == [[0.0, 0.0], [0.0, 0.0]]
    assert arrived(np.ma.array([1, 2], mask=[0, 1])) == [1, None]
    assert arrived(np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])) == [{"a": 1, "b": 2.0}]
    assert bare == {"pandas", "polars", "pyarrow", "numpy"}


class Ledger:
    """A class of a program."""


@dataclass
class Row:
    """A dataclass of a program."""


class Name(str):
    """A text of a program."""

    __slots__ = ()


class Rows(list):
    """A list of a program."""


class Colour(Enum):
    """An Enum of a program."""

    RED = "red"


@pytest.fixture(autouse=True)
def in_main(monkeypatch):
    for kind in (Ledger, Row, Name, Rows, Colour):
        monkeypatch.setattr(kind, "__module__", "__main__")
        monkeypatch.setattr(sys.modules["__main__"], kind.__name__, kind, raising=False)


async def nothing():
    """A coroutine."""


REFUSED = [
    (Ledger, "an object of the class Ledger, which is defined in this program", "vars(value)"),
    (Row, "an object of the class Row", "dataclasses.asdict(value)"),
    (lambda: Ledger, "the class Ledger", "define it in a cell"),
    (lambda: Name("x"), "an object of the class Name", "plain data, str(value)"),
    (lambda: Rows([1]), "an object of the class Rows", "plain data, list(value)"),
    (lambda: defaultdict(lambda: 0), "a defaultdict, which cannot be copied", "give dict(value)"),
    (lambda: types.MappingProxyType({}), "a mappingproxy, which cannot be copied", "give dict(value)"),
    (lambda: lambda: 1, "a lambda", "custom_tools="),
    (lambda: nothing, "the function 'nothing'", "custom_tools="),
    (lambda: io.StringIO("x"), "an open file", "file.read()"),
    (socket.socket, "a socket", "what you read from it"),
    (lambda: (n for n in [1]), "a generator", "list(value)"),
    ({}.keys, "a dict_keys", "list(value)"),
    (lambda: asyncio, "the module 'asyncio'", "import it in a cell"),
    (lambda: asyncio.Lock()._get_loop, "function|method", "custom_tools="),
    (lambda: pl.LazyFrame({"a": [1]}), "a LazyFrame, a query that has not run", "value.collect()"),
    (lambda: Colour.RED, "an object of the class Colour, which is defined in this program", "value.value"),
    (lambda: __import__("threading").Lock(), "a lock, which cannot be copied", "as text, numbers"),
]


@pytest.mark.parametrize(("make", "what", "todo"), REFUSED, ids=[what for _, what, _ in REFUSED])
def test_what_no_kernel_can_read_is_named_with_its_place_and_what_to_do(make, what, todo):
    value = make()
    model = rlm.RLM(ScriptedLM([]))
    with pytest.raises(ConfigError, match=what) as refused:
        model.completion({"rows": [1, 2, {"x": value}, value]}, "q")
    assert str(refused.value).startswith("context['rows'][2]['x'] is ")
    assert todo in str(refused.value)
    with pytest.raises(ConfigError) as whole:
        model.completion(value, "q")
    place = "context" if isinstance(value, str | list | dict) else "prompt"
    assert str(whole.value) == str(refused.value).replace("context['rows'][2]['x']", place, 1)
    if isinstance(value, socket.socket):
        value.close()


@pytest.mark.parametrize(
    ("value", "todo"),
    [
        (5, r"not int: give str\(value\), or \[value\]"),
        (dt.datetime(2026, 1, 2), r"not datetime: give str\(value\), or \[value\]"),  # noqa: DTZ001
        (Decimal(1), r"not Decimal: give str\(value\), or \[value\]"),
        (RegexFlag.A, r"not RegexFlag: give value.value"),
        (None, "give the input"),
        ({1}, r"give list\(value\)"),
        (types.SimpleNamespace(a=1), r"vars\(value\)"),
    ],
)
def test_a_value_that_is_no_whole_input_says_how_to_give_it(value, todo):
    with pytest.raises(ConfigError, match=f"prompt must be str, dict, list, bytes, a table or a Path, .*{todo}"):
        rlm.RLM(ScriptedLM([])).completion(value, "q")


def test_a_coroutine_is_refused():
    coroutine = nothing()
    with pytest.raises(ConfigError, match=r"context\[0\] is a coroutine that nobody has awaited: give its result"):
        convert([coroutine])
    coroutine.close()


def test_a_list_that_holds_itself_is_refused():
    value = [dt.date(2026, 1, 1)]
    value.append(value)
    with pytest.raises(ConfigError, match="nested too deeply, or holds itself"):
        convert(value)


def test_a_deeply_nested_list_is_refused():
    value, dated = [], [dt.date(2026, 1, 1)]
    for _ in range(2_000):
        value, dated = [value], [dated]
    for deep in (value, dated):
        with pytest.raises(ConfigError, match="context is nested too deeply, .* at most 200 levels"):
            convert(deep)
    value = []
    for _ in range(150):
        value = [value]
    assert arrived(value) == value


def test_tables_and_bytes_are_contexts_of_a_run(tmp_path):
    """In a real kernel: the model sees what it is, and a resumed run or replay has the same."""
    from rlm.logger import RLMLogger
    from rlm_kernel.replay.replayer import replay

    logger = RLMLogger(log_dir=str(tmp_path))
    cell = "```repl\nimport pandas\nassert isinstance(context, pandas.DataFrame)\nFINAL(str(context['n'].sum()))\n```"
    lm = ScriptedLM([cell])
    table = pd.DataFrame({"n": [1, 2], "name": ["Müller", "Smith"]})
    with rlm.RLM(lm, logger=logger) as model:
        done = model.completion(table, "How many?")
    assert done.response == "3"
    assert done.prompt is table
    assert "`context` is of type DataFrame, of length 2" in str(lm.calls[0])
    assert "Müller" in str(lm.calls[0])
    report = replay(logger.log_file_path)
    assert report.equal
    with rlm.RLM(ScriptedLM(["```repl\nFINAL(str(context[:1]))\n```"])) as model:
        assert model.completion(b"\xffrest", "q").response == str(b"\xff")
    with rlm.RLM(ScriptedLM(["done"]), max_depth=0) as model:
        model.completion({"t": table}, "q")


async def test_a_kernel_without_pandas_gets_records_and_the_run_says_so_once():
    lm = ScriptedLM(["```repl\nFINAL(str((context['a'], context['b'])))\n```"])
    model = rlm.RLM(lm, environment_kwargs={"setup_code": "import sys; sys.modules['pandas'] = None"})
    table = pd.DataFrame({"n": [1]})
    told = [event async for event in model.stream({"a": table, "b": table["n"]}, "q")]
    assert told[-1].completion.response == "([{'n': 1}], [1])"
    assert "the values are of type list" in str(lm.calls[0])
    assert "DataFrame" not in str(lm.calls[0]).partition("context['a']")[2]
    (started,) = [event for event in told if isinstance(event, events.RunStarted)]
    assert started.context_type == "dict"
    (notice,) = [event.message for event in told if isinstance(event, events.Notice)]
    assert notice.startswith("The kernel lacks pandas: a table arrives there as a list of dicts")


async def test_the_first_message_says_what_a_table_is_in_a_kernel_without_pandas():
    lm = ScriptedLM(["```repl\nFINAL(str(context))\n```"])
    model = rlm.RLM(lm, environment_kwargs={"setup_code": "import sys; sys.modules['pandas'] = None"})
    table = pd.DataFrame({"at": pd.to_datetime(["2024-01-01", "2024-01-02"])})
    told = [event async for event in model.stream(table, "q")]
    assert told[-1].completion.response == str([{"at": "2024-01-01T00:00:00"}, {"at": "2024-01-02T00:00:00"}])
    assert "`context` is a list with 2 items; the items are of type dict" in str(lm.calls[0])
    assert "2024-01-01T00:00:00" in str(lm.calls[0])
    assert "of type DataFrame" not in str(lm.calls[0])
    (started,) = [event.facts for event in told if isinstance(event, events.RunStarted)]
    assert "DataFrame of 2 items" in started
