"""`rlm gateway install` and `rlm gateway workspace`."""

from __future__ import annotations

import json
import subprocess

import pytest

from rlm_kernel.cli import main
from rlm_kernel.gateway.client_files import CLIENTS

URL = "https://gateway.example:8080/mcp"


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("rlm_kernel.terminal.confirm", lambda _: True)
    return folder


@pytest.mark.parametrize("name", CLIENTS)
def test_the_server_is_added_to_what_is_there_and_a_copy_is_kept(project, name, capsys):
    client = CLIENTS[name]
    file = project / client.file
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({client.section: {"other": {"command": "x"}}, "mine": 1}))
    assert main(["gateway", "install", name]) == 0
    content = json.loads(file.read_text())
    assert content["mine"] == 1
    assert content[client.section]["other"] == {"command": "x"}
    command = content[client.section]["rlm"]["command"]
    assert subprocess.run([command, "--version"], capture_output=True, env={}, check=False).returncode == 0
    assert content[client.section]["rlm"]["args"] == ["gateway", "--repo-path", str(project)]
    assert '+    "rlm": {' in capsys.readouterr().err
    (copy,) = file.parent.glob("*.before-rlm-1")
    assert "rlm" not in copy.read_text()
    assert main(["gateway", "install", name]) == 0
    assert "is set up already" in capsys.readouterr().err


def test_nothing_is_written_without_consent(project, monkeypatch, capsys):
    monkeypatch.setattr("rlm_kernel.terminal.confirm", lambda _: False)
    assert main(["gateway", "install", "cursor"]) == 2
    assert list(project.rglob("*")) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{ // mine\n}", '"--repo-path"'),
        ("[]", "add this to 'mcpServers' by hand"),
        ('{"mcpServers": 1}', "correct it first"),
        ('{"a":' * 50_000, "nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_merged_is_left_and_the_way_by_hand_is_shown(project, content, words, capsys):
    (project / ".mcp.json").write_text(content)
    assert main(["gateway", "install", "claude-code"]) == 2
    assert (project / ".mcp.json").read_text() == content
    assert words in capsys.readouterr().err


def test_a_workspace_holds_configuration_and_no_key(project, monkeypatch, capsys):
    monkeypatch.setenv("RLM_GATEWAY_API_KEY", "0123456789abcdef")
    assert main(["gateway", "workspace", "thin", "--url", URL]) == 0
    files = {str(path.relative_to(project / "thin")) for path in (project / "thin").rglob("*") if path.is_file()}
    assert files == {"README.md", ".mcp.json", ".cursor/mcp.json", ".vscode/mcp.json", ".zed/settings.json"}
    for file in files:
        text = (project / "thin" / file).read_text()
        assert URL in text
        assert "0123456789abcdef" not in text


def test_a_folder_with_source_does_not_become_a_workspace(project, capsys):
    (project / "thin").mkdir()
    (project / "thin" / "main.py").touch()
    assert main(["gateway", "workspace", "thin", "--url", URL]) == 2


def test_a_link_stays_and_its_file_keeps_its_permissions(project, tmp_path, capsys):
    """The configuration of many people is a link into a folder of their own, and may hold tokens."""
    real = tmp_path / "dotfiles" / "mcp.json"
    real.parent.mkdir()
    real.write_text('{"mcpServers": {"other": {"env": {"TOKEN": "x"}}}}')
    real.chmod(0o600)
    (project / ".mcp.json").symlink_to(real)
    assert main(["gateway", "install", "claude-code"]) == 0
    assert (project / ".mcp.json").readlink() == real
    assert "rlm" in json.loads(real.read_text())["mcpServers"]
    assert f"+++ {real}" in capsys.readouterr().err
    (copy,) = real.parent.glob("*.before-rlm-1")
    assert [path.stat().st_mode & 0o777 for path in (real, copy)] == [0o600, 0o600]


def test_inputs_that_are_no_list_are_left(project, capsys):
    (project / ".vscode").mkdir()
    (project / ".vscode" / "mcp.json").write_text('{"inputs": {}}')
    assert main(["gateway", "install", "vscode", "--url", URL]) == 2
    assert "'inputs' is not a list" in capsys.readouterr().err
