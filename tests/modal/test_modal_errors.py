"""When there is no sandbox: the error says why and what helps, holds no token, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import traceback

import modal
import pytest

from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.installation import install_command


@pytest.fixture
def other_client(modal_emulator, monkeypatch):
    """Modal's client keeps its connection for the process: end it, so that the next one reads the environment again."""
    modal.Client.from_env().close()
    yield monkeypatch
    monkeypatch.undo()
    monkeypatch.setenv("MODAL_CONFIG_PATH", os.devnull)
    for name, value in modal_emulator.environment.items():
        monkeypatch.setenv(name, value)
    if all(os.environ.get(name) for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")):
        modal.Client.from_env().close()


async def test_a_missing_client_names_the_extra(modal_session, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=re.escape(install_command("modal"))):
        await modal_session()


async def test_no_token_says_how_to_get_one(modal_session, other_client):
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        other_client.delenv(name)
    with pytest.raises(ConfigError, match="Token missing.*`modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SE"):
        await modal_session()


async def test_a_token_that_is_not_known_says_so_and_is_not_shown(modal_session, other_client):
    other_client.setenv("MODAL_TOKEN_SECRET", "as-not-to-be-seen")
    with pytest.raises(ConfigError, match=r"no such token.*modal token new") as caught:
        await modal_session()
    assert "as-not-to-be-seen" not in "".join(traceback.format_exception(caught.value))


async def test_an_app_of_somebody_else_is_named(modal_session):
    with pytest.raises(ConfigError, match="does not allow the App 'somebody-elses'.*app_name"):
        await modal_session(app_name="somebody-elses")


async def test_an_environment_that_is_not_there_is_named(modal_session, monkeypatch):
    monkeypatch.setenv("MODAL_ENVIRONMENT", "no-such")
    with pytest.raises(ConfigError, match="'no-such' not found.*MODAL_ENVIRONMENT"):
        await modal_session()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"app_name": "no spaces, please"}, "Invalid App name"),
        ({"gpu": "T4:many"}, "Invalid GPU count"),
        ({"packages": ["--no-deps"]}, "cannot contain other arguments"),
    ],
)
async def test_what_modal_refuses_is_passed_on(modal_session, options, says):
    with pytest.raises(ConfigError, match=rf"(?s)refuses an option of environment_kwargs.*{says}"):
        await modal_session(**options)


async def test_a_failed_build_shows_the_end_of_its_log(modal_session, modal_emulator):
    log = [f"line {number}" for number in range(100)]
    modal_emulator.build_failures["no-such-package"] = [
        *log,
        "ERROR: No matching distribution found for no-such-package",
    ]
    with pytest.raises(
        KernelError, match=r"(?s)could not build.*line 99.*No matching.*`image` and `packages`"
    ) as caught:
        await modal_session(packages=["no-such-package"])
    assert "line 50" not in str(caught.value)
    assert modal_emulator.sandboxes == []


async def test_no_capacity_says_what_to_do(modal_session, modal_emulator):
    modal_emulator.no_capacity = True
    with pytest.raises(KernelError, match=r"no sandbox for you now \(no capacity\).*later.*less cpu"):
        await modal_session()


async def test_modal_out_of_reach_says_so_without_the_token(modal_session, other_client):
    other_client.setattr("rlm_kernel.provisioners.modal.sandbox.CONNECT_SECONDS", 1.0)
    other_client.setenv("MODAL_SERVER_URL", "http://127.0.0.1:9")
    with pytest.raises(
        KernelError, match=r"did not give a sandbox \(no answer within 1 s\)\. Is the network"
    ) as caught:
        await modal_session()
    assert "as-emulated" not in "".join(traceback.format_exception(caught.value))


async def test_an_image_in_which_no_kernel_starts_says_what_it_said(modal_session, modal_emulator, monkeypatch):
    # An image whose Python lacks pyzmq: the relay cannot run.
    environment = {**modal_emulator.sandbox_environment(), "PYTHONPATH": "/nonexistent", "PYTHONHOME": "/nonexistent"}
    monkeypatch.setattr(modal_emulator, "sandbox_environment", lambda: environment)
    with pytest.raises(KernelError, match="(?s)ended while it started.*encodings"):
        await modal_session()
    assert modal_emulator.running() == []


async def test_an_image_without_python_says_so(modal_session, modal_emulator, monkeypatch, tmp_path):
    (tmp_path / "sleep").symlink_to(shutil.which("sleep"))
    monkeypatch.setattr(modal_emulator, "sandbox_environment", lambda: {"PATH": str(tmp_path)})
    with pytest.raises(KernelError, match="(?s)ended while it started.*python: "):
        await modal_session()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("timeout", 0, "1"),
        ("timeout", 100_000, "86400"),
        ("timeout", "600", "timeout"),
        ("app_name", 5, "app_name"),
        ("packages", ["numpy\nRUN evil"], "a package is one line of a requirements file"),
        ("packages", [5], "packages"),
        ("cpu", 0, "greater than 0"),
        ("cpu", "two", "cpu"),
        ("memory", "much", "write it like '2g'"),
        ("memory", "1k", "give it 1m at least"),
        ("gpu", 1, "gpu"),
        ("block_network", "no", "block_network"),
        ("env", {"A": 1}, "env"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_starts(option, value, says):
    from traitlets import TraitError

    from rlm_kernel.provisioners.modal.provisioner import ModalKernel

    with pytest.raises(TraitError, match=says):
        ModalKernel(**{option: value})
