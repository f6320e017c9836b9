"""Keys of HTTP: which are taken, how they are compared, and what a file that changes does."""

from __future__ import annotations

import hmac

import pytest

from rlm_kernel.errors import ConfigError
from rlm_kernel.gateway.keys import Keys
from rlm_kernel.gateway.oauth import AnyOf

ONE, TWO = "0123456789abcdef-one", "0123456789abcdef-two"


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "keys"
    file.touch(mode=0o600)
    file.write_text(f"# comment\n\none read {ONE}\ntwo read,exec {TWO}\n")
    return file


async def owner(keys, key):
    found = await keys.verify_token(key)
    return found and (found.client_id, found.scopes)


async def test_a_key_has_a_name_and_scopes(file):
    keys = Keys("the-key-of-the-environment", file)
    assert await owner(keys, ONE) == ("one", ["read"])
    assert await owner(keys, TWO) == ("two", ["read", "exec"])
    assert await owner(keys, "the-key-of-the-environment") == ("default", ["read", "exec", "complete"])
    assert await owner(keys, ONE[:-1]) is None
    assert await owner(keys, "schlüssel\udcff") is None


async def test_every_key_is_compared_in_constant_time(file, monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *given: compared.append(given) or real(*given))
    keys = Keys(None, file)
    for key in (ONE, "another"):
        compared.clear()
        await keys.verify_token(key)
        assert [len(digest) for pair in compared for digest in pair] == [32] * 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "HTTP needs a key"),
        (f"one read {ONE}\none exec {TWO}\n", "the same name"),
        (f"one write {ONE}\n", "unknown scope"),
        (f"one {ONE}\n", "NAME SCOPE"),
        ("one read short\n", "shorter than 16"),
    ],
)
def test_a_file_without_usable_keys_is_refused(file, text, words):
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        Keys(None, file)


def test_a_file_that_others_may_read_is_refused(file):
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Keys(None, file)


async def test_keys_of_a_file_that_becomes_unusable_are_not_valid(file, capsys):
    keys = Keys("the-key-of-the-environment", file)
    assert await owner(keys, ONE)
    file.unlink()
    assert await owner(keys, ONE) is None
    assert "cannot be read" in capsys.readouterr().err
    assert await owner(keys, "the-key-of-the-environment")
    file.touch(mode=0o600)
    file.write_text(f"one read {TWO}\n")
    assert await owner(keys, TWO) == ("one", ["read"])


async def test_a_wrong_key_is_a_note_for_the_operator_now_and_then_without_the_key(file, capsys):
    keys = AnyOf([Keys(None, file)])
    assert await owner(keys, ONE)
    assert capsys.readouterr().err == ""
    for _ in range(3):
        assert await owner(keys, "a-wrong-key-of-someone") is None
    said = capsys.readouterr().err
    assert said.count("a request was refused (401)") == 1
    assert "a-wrong-key" not in said
