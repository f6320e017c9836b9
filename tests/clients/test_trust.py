"""The rule about keys and servers, for every pair of sources."""

from __future__ import annotations

from itertools import product

import pytest

from rlm_kernel.clients.trust import Source, Sourced, addresses_elsewhere, check, merge
from rlm_kernel.errors import ConfigError

URL = "http://127.0.0.1:1/v1"
USERS = {Source.DEFAULT, Source.ARGUMENT, Source.ENVIRONMENT}


def sourced(name, value, source):
    return Sourced(value, source, name, "its place")


@pytest.mark.parametrize(("url", "key"), list(product(Source, Source)), ids=str)
def test_a_key_goes_to_no_server_of_a_less_trusted_source(url, key):
    settings = {"base_url": sourced("base_url", URL, url), "api_key": sourced("api_key", "secret", key)}
    # A key of the table of backends is a word for servers that want none; a record holds no key of the user's.
    allowed = key is Source.DEFAULT or (key >= Source.DOTENV and (url in USERS or url >= key))
    if allowed:
        check(settings)
        return
    with pytest.raises(ConfigError) as refused:
        check(settings)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("source", [source for source in Source if source not in USERS], ids=str)
def test_without_a_key_only_a_server_of_this_machine_gets_the_input(source):
    check({"base_url": sourced("base_url", URL, source)})
    with pytest.raises(ConfigError, match="names the server https://example.com/v1, which would get the input"):
        check({"base_url": sourced("base_url", "https://user:word@example.com/v1", source)})


def test_two_mappings_have_the_less_trusted_source():
    recorded = sourced("sampling_args", {"a": 1}, Source.RECORD)
    assert merge("sampling_args", recorded, {"b": 2}).source is Source.RECORD
    assert merge("sampling_args", {"b": 2}, recorded).value == {"b": 2, "a": 1}
    assert merge("sampling_args", None, {"b": 2}).source is Source.ARGUMENT
    assert merge("sampling_args", sourced("sampling_args", {}, Source.RECORD), {"b": 2}).source is Source.ARGUMENT


def test_a_key_of_the_user_is_not_hidden_by_the_arguments_of_a_record():
    recorded = sourced("sampling_args", {"seed": 1}, Source.RECORD)
    merged = merge("sampling_args", recorded, {"extra_body": {"key": "secret"}})
    url = sourced("base_url", URL, Source.DOTENV)
    with pytest.raises(ConfigError, match="which would get sampling_args in backend_kwargs"):
        check({"base_url": url, "sampling_args": merged})
    check({"base_url": url, "sampling_args": recorded})


def test_a_value_is_not_in_the_repr():
    assert "secret" not in repr(sourced("api_key", "secret", Source.ARGUMENT))


HERE = ["http://localhost:1", "http://127.0.0.1", "http://[::1]:80/v1", "http://0.0.0.0:8"]
NOT_HERE = [
    "http://localhost.example.com",
    "http://localhost@example.com",
    "http://127.0.0.1.example.com",
    "http://[::1",
]


def test_what_looks_like_this_machine_is_not_taken_for_it():
    assert addresses_elsewhere([*HERE, *NOT_HERE]) == set(NOT_HERE)
    assert addresses_elsewhere({"a": {"endpoint": "example.com"}, "b": ({"url": "x"},), "model": "x"}) == {
        "example.com", "x"
    }  # fmt: skip
