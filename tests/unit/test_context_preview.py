from __future__ import annotations

import pytest

from rlm_kernel.prompts.context_preview import bounded_repr, describe


def test_a_text_is_described_by_its_size_and_both_ends():
    facts = describe("head " + "x" * 10_000 + "\n tail")
    assert (facts.type_name, facts.length, facts.lines) == ("str", 10_011, 2)
    assert facts.parts[0].head.startswith("head xxx")
    assert facts.parts[0].tail.endswith("x\n tail")


def test_a_short_text_has_a_head_and_no_tail():
    part = describe("short").parts[0]
    assert (part.head, part.tail) == ("short", "")


def test_a_dict_is_described_by_its_first_entries():
    facts = describe({"a.py": "import os\n", 7: None, ("x", 1): [1, 2]})
    assert [part.label for part in facts.parts] == ["context['a.py']", "context[7]", "context[('x', 1)]"]
    assert [part.length for part in facts.parts] == [10, None, 2]
    assert facts.part_types == ("str", "NoneType", "list")
    assert facts.characters == 10


def test_a_list_of_a_million_items_is_not_counted_item_by_item():
    facts = describe(["ab"] * 1_000_000)
    assert (facts.length, facts.characters, len(facts.parts)) == (1_000_000, None, 8)


@pytest.mark.parametrize("empty", ["", {}, []])
def test_an_empty_context_has_the_form_empty(empty):
    assert describe(empty).form == "empty"
    assert describe(empty).length == 0


@pytest.mark.parametrize(
    ("form", "context"),
    [
        ("sources", {"a.py": "x = 1", "b.py": "y = 2", "c.txt": "z"}),
        ("files", {"a.txt": "long " * 500, "b.txt": "long " * 500}),
        ("texts", ["one remark", "another remark"]),
        ("records", [{"a": 1}, {"a": 2}]),
        ("records", {"k": {"a": 1}}),
        ("values", {"k": 1, "l": 2}),
        ("values", ["text", 2]),
        ("table", "name,age,town\nAda,36,London\nBen,41,Oslo\n"),
        ("table", "name\tage\ttown\nAda\t36\tLondon\n"),
        ("log", "10:01 INFO a=1 started\n10:02 WARN a=2 slow\n10:03 INFO a=3 stopped now\n"),
        ("json", ' [{"a": 1}, {"a": 2}]\n'),
        ("prose", "Chapter one\n\nIt rained. The ferry did not leave before noon, and nobody minded.\nYes.\n"),
        ("empty", "\n\n  \n"),
    ],
)
def test_the_form_of_a_context_is_recognised(form, context):
    assert describe(context).form == form


@pytest.mark.parametrize(
    "value", [{"a": [1, (2.5, None)], "b": {"c": "d"}}, [], {}, (1, 2), "it's", b"\x00", True, [[["deep"]]]]
)
def test_a_bounded_repr_of_a_small_value_is_its_repr(value):
    assert bounded_repr(value, 1_000) == repr(value)


def test_a_bounded_repr_of_a_large_value_stops_at_the_limit():
    assert len(bounded_repr({"k": ["x" * 50_000] * 50_000}, 100)) == 100


def test_a_bounded_repr_does_not_follow_a_value_that_holds_itself():
    loop: list[object] = []
    loop.append(loop)
    assert bounded_repr(loop, 100).startswith("[[[")


def test_a_bounded_repr_shows_no_foreign_object_and_no_endless_number():
    assert bounded_repr([object(), 10**5_000], 100) == "[<object>, <int>]"
