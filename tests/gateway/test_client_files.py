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


@pytest.mark.parametrize("name", ["README.md", "main.py", ".git/config"])
def test_a_folder_of_a_project_does_not_become_a_workspace_and_keeps_its_files(project, name, capsys):
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text("mine\n")
    assert main(["gateway", "workspace", ".", "--url", URL, "--yes"]) == 2
    assert [path for path in project.rglob("*") if path.is_file()] == [project / name]
    assert (project / name).read_text() == "mine\n"
    assert str(project / name) in capsys.readouterr().err


def test_a_workspace_that_is_there_changes_its_address_after_a_question(project, monkeypatch, capsys):
    (project / ".mcp.json").write_text('{"mcpServers": {"other": {"command": "x"}}}')
    monkeypatch.setattr("rlm_kernel.terminal.confirm", lambda _: False)
    assert main(["gateway", "workspace", ".", "--url", URL]) == 2
    assert "give --yes" in capsys.readouterr().err
    for url in (URL, URL, "https://other.example/mcp"):
        assert main(["gateway", "workspace", ".", "--url", url, "--yes"]) == 0
    assert set(json.loads((project / ".mcp.json").read_text())["mcpServers"]) == {"other", "rlm"}
    assert "https://other.example/mcp" in (project / "README.md").read_text()
    assert URL in (project / "README.md.before-rlm-1").read_text()


def test_the_options_of_the_gateway_are_in_the_entry(project, tmp_path, capsys):
    more = ["--backend", "openai", "--model", "m", "--backend-kwarg", "max_retries=5", "--environment", "local"]
    assert main(["gateway", "install", "cursor", "--yes", "--data-dir", "../data", *more]) == 0
    args = json.loads((project / ".cursor/mcp.json").read_text())["mcpServers"]["rlm"]["args"]
    assert args == [
        "gateway",
        "--repo-path",
        str(project),
        "--backend=openai",
        "--model=m",
        "--environment=local",
        f"--data-dir={tmp_path / 'data'}",
        "--backend-kwarg=max_retries=5",
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["install", "cursor", "--api-key", "0123456789abcdef"], "RLM_GATEWAY_API_KEY"),
        (["install", "cursor", "--backend", "openai", "--model", "m", "--backend-kwarg", "api_key=x"], "command line"),
        (["install", "cursor", "--backend", "openai"], "needs a model"),
        (["install", "cursor", "--model", "m"], "--model needs --backend"),
        (["install", "cursor", "--url", "x"], "such as https://HOST:8080/mcp"),
        (["install", "cursor", "--url", URL, "--data-dir", "d"], "--data-dir has no effect on install --url"),
        (["install", "cursor", "--repo-path", "/nonexist"], "is no folder"),
        (["workspace", "thin", "--url", "gateway.example/mcp"], "such as https://HOST:8080/mcp"),
        (["--repo-path", "/nonexist"], "is no folder"),
        (["--host", "0.0.0.0"], "--host has no effect on serve over stdio"),
        (["--key-file", "keys"], "It is for serve --mode http."),
        (["--mode", "http", "--repo-path", ".", "--url", URL], "no effect without --oauth-issuer"),
        (["--mode", "http", "--repo-path", ".", "--port", "99999"], "--port must be 0 to 65535"),
        (["--backend", "openai", "--model", "m", "--data-dir", "../data"], "No API key for 'openai'"),
    ],
)
def test_an_option_that_has_no_effect_or_cannot_hold_is_refused(project, monkeypatch, given, words, capsys):
    for name in ("OPENAI_API_KEY", "RLM_BACKEND", "RLM_MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert main(["gateway", *given]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "0123456789abcdef" not in said
    assert [path for path in project.rglob("*") if path.is_file()] == []


def test_an_empty_path_is_not_the_working_directory(project, capsys):
    with pytest.raises(SystemExit):
        main(["gateway", "--repo-path", ""])
    assert "the path is empty" in capsys.readouterr().err
