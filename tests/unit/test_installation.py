"""Hints name the command that installs an extra, however this package was installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rlm_kernel
from rlm_kernel.errors import ConfigError, check_extra
from rlm_kernel.installation import install_command, update_command

CHECKOUT = "/home/a person/rlm"
EDITABLE = '{"url": "file:///home/a%20person/rlm", "dir_info": {"editable": true}}'
COPIED = '{"url": "file:///home/a%20person/rlm", "dir_info": {}}'
WHEEL = '{"url": "file:///tmp/rlm_kernel-0.1.0-py3-none-any.whl", "archive_info": {}}'


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Put a distribution `rlm-kernel` with this `direct_url.json` before the real one."""

    def install(direct_url):
        folder = tmp_path / "rlm_kernel-9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: rlm-kernel\nVersion: 9\n")
        if direct_url is not None:
            (folder / "direct_url.json").write_text(direct_url)
        monkeypatch.syspath_prepend(tmp_path)

    return install


@pytest.mark.parametrize(
    ("direct_url", "install", "update"),
    [
        (EDITABLE, f"pip install -e '{CHECKOUT}[mcp]'", f"git -C '{CHECKOUT}' pull"),
        (COPIED, f"pip install '{CHECKOUT}[mcp]'", f"git -C '{CHECKOUT}' pull && pip install '{CHECKOUT}'"),
        (WHEEL, "pip install 'rlm-kernel[mcp]'", "pip install -U rlm-kernel"),
        (None, "pip install 'rlm-kernel[mcp]'", "pip install -U rlm-kernel"),
    ],
)
def test_the_command_is_of_the_place_that_the_package_came_from(installed, direct_url, install, update):
    installed(direct_url)
    assert (install_command("mcp"), update_command()) == (install, update)


def test_a_package_that_is_run_from_the_source_is_installed_by_name():
    source = f"import sys; sys.path.insert(0, {str(rlm_kernel.__path__[0] + '/..')!r})"
    code = f"{source}; from rlm_kernel.installation import install_command; print(install_command('mcp'))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "pip install 'rlm-kernel[mcp]'\n"


def test_a_missing_extra_names_the_command(installed):
    installed(EDITABLE)
    with pytest.raises(ConfigError) as raised:
        check_extra("The gateway", "no_such_module", "mcp")
    assert str(raised.value) == f"The gateway needs the extra 'mcp': pip install -e '{CHECKOUT}[mcp]'"
