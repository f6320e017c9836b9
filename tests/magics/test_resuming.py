"""From the options of `%rlm resume` to what goes on from a record, without a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_kernel.clients.trust import Source, value_of
from rlm_kernel.errors import ConfigError
from rlm_kernel.trajectory.log.redaction import HIDDEN
from rlm_magics import resume_arguments
from rlm_magics.arguments import merge_settings
from rlm_magics.grammar import command_grammar
from rlm_magics.settings import Settings, values

RECORDED = {
    "backend": "openai",
    "backend_kwargs": {"model_name": "recorded", "base_url": "http://elsewhere"},
    "environment_kwargs": {"cell_timeout": 3},
}


def overrides(line, recorded=RECORDED, **settings):
    """Those that the command gives, without their sources."""
    said = command_grammar("resume").read(line)
    known = resume_arguments.with_recorded_model(said, recorded, Path("a.jsonl"))
    given = resume_arguments.overrides(said, merge_settings({**values(Settings()), **settings}, known), recorded, {})
    return {name: _plain(value) for name, value in given.items()}


def _plain(given):
    if isinstance(given, dict):
        return {name: value_of(value) for name, value in given.items()}
    return [_plain(value) for value in given] if isinstance(given, list) else given


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("", {}),
        ("--max-iterations 7 --prompts small", {"max_iterations": 7, "prompts": "small"}),
        (
            "--base-url http://x",
            {"backend": "openai", "backend_kwargs": {"model_name": "recorded", "base_url": "http://x"}},
        ),
        (
            "--backend-kwarg max_retries=9",
            {"backend": "openai", "backend_kwargs": {"model_name": "recorded", "max_retries": 9}},
        ),
        ("-m other", {"backend": "openai", "backend_kwargs": {"model_name": "other"}}),
        ("-b llamacpp", {"backend": "llamacpp", "backend_kwargs": {}}),
        ("--sub-model s", {"other_backends": ["openai"], "other_backend_kwargs": [{"model_name": "s"}]}),
        ("--sub-backend llamacpp", {"other_backends": ["llamacpp"], "other_backend_kwargs": [{}]}),
        ("--environment-kwarg memory=1g", {"environment_kwargs": {"cell_timeout": 3, "memory": "1g"}}),
        ("--attachable", {"environment_kwargs": {"cell_timeout": 3, "attachable": True}}),
        ("-e docker --attachable", {"environment": "docker", "environment_kwargs": {"attachable": True}}),
    ],
)
def test_every_option_goes_before_the_record_and_nothing_else_does(line, given):
    assert overrides(line) == given


def test_what_is_set_for_another_backend_than_the_recorded_one_is_not_given_to_it():
    given = overrides("--backend-kwarg max_retries=9", backend="vllm", model="mine", base_url="http://mine")
    assert given["backend_kwargs"] == {"model_name": "recorded", "max_retries": 9}


def test_a_secret_that_is_not_on_record_is_asked_for_again():
    recorded = {**RECORDED, "environment_kwargs": {"env": {"API_TOKEN": HIDDEN}}}
    assert "environment_kwargs" not in overrides("--attachable", recorded)
    with pytest.raises(ConfigError, match="env held a secret, which is in no log"):
        overrides("--environment-kwarg memory=1g", recorded)
    assert overrides("-e docker --environment-kwarg memory=1g", recorded)["environment_kwargs"] == {"memory": "1g"}


def test_a_key_is_refused():
    with pytest.raises(ConfigError, match="does not belong in a notebook"):
        overrides("--backend-kwarg api_key=sk-123456789")


def test_a_recorded_model_keeps_its_source():
    said = command_grammar("resume").read("--base-url http://x")
    known = resume_arguments.with_recorded_model(said, RECORDED, Path("a.jsonl"))
    assert (known.model.value, known.model.source, known.model.place) == ("recorded", Source.RECORD, "a.jsonl")
