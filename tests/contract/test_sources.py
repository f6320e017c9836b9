"""Every value that a client is made with has a source: no backend reads the environment by itself."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest
from contract.test_layers import files, tree

from rlm_kernel.clients import backends, registry
from rlm_kernel.clients.backends import BACKENDS
from rlm_kernel.clients.registry import build
from rlm_kernel.clients.trust import PLAIN, SECRETS, Source, Sourced
from rlm_kernel.errors import ConfigError

READERS = {
    "variables": "the one reader",
    "litellm": "what litellm finds itself is kept out of messages; its import is kept from reading a `.env`",
    "server_main": "OpenMP's setting, in the child",
    "weights": "where the cache is, and where uv is",
}


def test_only_one_module_of_clients_reads_keys_and_servers_from_the_environment():
    found = {
        name.rpartition(".")[2]
        for name in files()
        if name.startswith("rlm_kernel.clients.")
        for node in ast.walk(tree(name))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"})
        or (isinstance(node, ast.alias) and node.name in {"environ", "environb", "getenv"})
    }
    assert found == READERS.keys()


def test_only_the_registry_makes_clients_of_the_table():
    found = {
        name
        for name in files()
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute) and node.attr == "create" and ast.unparse(node.value) == "backend"
    }
    assert found == {"rlm_kernel.clients.registry"}


def test_what_neither_chooses_a_server_nor_is_a_secret_is_an_argument_that_exists():
    known = {argument for row in BACKENDS.values() for argument in row.arguments}
    assert known >= PLAIN
    assert known >= SECRETS
    assert not PLAIN & SECRETS


def test_a_new_backend_with_a_new_argument_is_checked_without_being_told(monkeypatch):
    row = backends.Backend("new", optional=(*BACKENDS["openai"].optional, "region"), key_variable="NEW_API_KEY")
    monkeypatch.setattr(registry, "BACKENDS", {**BACKENDS, "new": replace(row, base_url_variable="NEW_URL")})
    given = {"model_name": "m", "region": Sourced("x", Source.RECORD, "region", "a.jsonl")}
    with pytest.raises(ConfigError, match="region in a.jsonl decides who gets NEW_API_KEY in the environment"):
        build("new", given, {"NEW_API_KEY": "k"})
