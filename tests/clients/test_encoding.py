"""The JSON of requests: every message is encoded once."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from remote_clients import anthropic_lm, openai_lm

from rlm_kernel.clients import encoding
from rlm_kernel.clients.encoding import MessageEncoder, request_body
from rlm_kernel.errors import ConfigError


class Counting:
    """Encodes messages as they are, and counts."""

    def __init__(self):
        self.contents = []
        self.encode = MessageEncoder(self._value)

    def _value(self, message):
        self.contents.append(message["content"])
        return {"role": message["role"], "content": message["content"]}


def conversation(*contents):
    return [{"role": "user", "content": content} for content in contents]


def test_a_growing_conversation_encodes_only_what_is_new():
    counting = Counting()
    for length in range(2, 50):
        messages = conversation(*map(str, range(length)))
        assert list(map(json.loads, counting.encode(messages))) == messages
    assert counting.contents == [str(n) for n in range(49)]


def test_a_message_that_was_changed_is_encoded_as_it_is_now():
    counting = Counting()
    messages = conversation("one", "two")
    list(counting.encode(messages))
    messages[1]["content"] = "three"
    assert json.loads(list(counting.encode(messages))[1])["content"] == "three"


def test_a_single_message_is_not_kept():
    counting = Counting()
    for _ in range(2):
        list(counting.encode(conversation("a sub-call")))
    assert len(counting.contents) == 2


def test_the_kept_json_is_bounded(monkeypatch):
    monkeypatch.setattr(encoding, "MAX_KEPT_BYTES", 1_000)
    counting = Counting()
    messages = conversation(*(str(n) * 100 for n in range(10, 30)))
    assert list(map(json.loads, counting.encode(messages))) == messages
    assert counting.encode._kept_bytes <= 1_000
    assert sum(len(json) for json, _ in counting.encode._kept.values()) == counting.encode._kept_bytes


def test_the_messages_of_runs_that_are_over_are_forgotten(monkeypatch):
    monkeypatch.setattr(encoding, "MAX_UNUSED", 10)
    counting = Counting()
    for number in range(100):
        list(counting.encode(conversation("the system prompt", f"question {number}")))

    assert len(counting.encode._kept) == 1 + 11
    assert counting.contents.count("the system prompt") == 1


def test_a_body_is_the_json_of_the_request():
    messages = [b'{"role":"user","content":"\xc3\xa4"}', b"{}"]
    body = json.loads(request_body({"messages": b",".join(messages), "model": "m", "seed": 1}))
    assert body == {"model": "m", "seed": 1, "messages": [{"role": "user", "content": "ä"}, {}]}


UNSENDABLE = [float("nan"), 1j, b"bytes", {1, 2}, Decimal("0.5"), object(), "\ud800"]


@pytest.mark.parametrize("build", [openai_lm, anthropic_lm])
@pytest.mark.parametrize("argument", ["sampling_args", "extra_body"])
@pytest.mark.parametrize("value", UNSENDABLE, ids=lambda value: type(value).__name__)
def test_a_field_that_json_cannot_represent_is_refused_by_name(build, argument, value):
    with pytest.raises(ConfigError, match=rf"{argument}\['seed'\] cannot be sent as JSON"):
        build("model", "key", **{argument: {"seed": value}})


@pytest.mark.parametrize("build", [openai_lm, anthropic_lm])
@pytest.mark.parametrize("name", ["stream", "messages"])
def test_what_each_call_sets_may_not_be_in_the_extra_body(build, name):
    with pytest.raises(ConfigError, match=f"extra_body may not hold {name}"):
        build("model", "key", extra_body={name: True})
