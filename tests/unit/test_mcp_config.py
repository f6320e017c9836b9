from __future__ import annotations

import json

import pytest

from rlm import ConfigError, MCPServer, ToolCall, mcp_servers
from rlm_kernel.mcp.approval import AskOnce
from rlm_kernel.mcp.config import servers_named
from rlm_kernel.mcp.naming import identifier


def test_files_of_claude_cursor_and_vs_code_are_read(tmp_path):
    vs_code = tmp_path / ".vscode" / "mcp.json"
    vs_code.parent.mkdir()
    vs_code.write_text("""{
        // a comment, and "text // that is none"
        "servers": {
            "my-files": {"type": "stdio", "command": "npx", "args": ["${workspaceFolder}/data", "a // b",], /* i */},
            "web": {"type": "http", "url": "https://example.com/mcp",
                    "headers": {"Authorization": "Bearer ${env:KEY}"}},
            "off": {"command": "x", "disabled": true},
        },
    }""")
    servers = mcp_servers(vs_code, {"KEY": "k-1"})
    assert list(servers) == ["my_files", "web"]
    assert servers["my_files"].args == (f"{tmp_path}/data", "a // b")
    assert servers["my_files"].cwd == tmp_path
    assert servers["web"].headers == {"Authorization": "Bearer k-1"}
    claude = {"mcpServers": {"a": {"command": "c", "env": {"X": "${X}", "Y": "${Y:-none}", "N": 1}, "alwaysAllow": []}}}
    assert mcp_servers(claude, {"X": "1"})["a"].env == {"X": "1", "Y": "none", "N": "1"}


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"command": "c", "args": "a"}, "args is a list"),
        ({"command": "${MISSING}"}, "the variable MISSING is not set"),
        ({"command": "${input:key}"}, "asks a person"),
        ({}, "takes a command or a url"),
        ({"command": "c", "url": "https://a"}, "takes a command or a url"),
        ({"url": "file:///etc"}, "begins with http"),
        ({"type": "smoke", "url": "https://a"}, "type 'smoke' is not known"),
        (7, "is not an object"),
    ],
)
def test_a_wrong_entry_is_named(entry, why):
    with pytest.raises(ConfigError, match=rf"the configuration: it.*{why}"):
        mcp_servers({"mcpServers": {"it": entry}}, {})


def test_a_file_that_is_none_says_so(tmp_path):
    path = tmp_path / "mcp.json"
    with pytest.raises(ConfigError, match="cannot be read"):
        mcp_servers(path)
    for text, why in (("{", "is not JSON"), ("[]", "holds a list"), ('{"a": 1}', "names no MCP servers")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=why):
            mcp_servers(path)


def test_an_option_is_a_file_a_url_or_a_command(tmp_path):
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"one": {"command": "c"}, "fs": {"command": "d"}}}))
    given = [
        "npx -y @modelcontextprotocol/server-filesystem /data",
        "https://mcp.example.com/mcp",
        "fs=uvx files",
        str(path),
    ]
    servers = servers_named(given)
    assert list(servers) == ["filesystem", "example", "fs", "one", "server_fs"]
    assert servers["fs"] == MCPServer("uvx", ["files"])


def test_the_repr_of_a_server_has_no_values():
    server = MCPServer(url="https://me:pw@example.com/mcp?key=k", headers={"Authorization": "Bearer s"}, timeout=3)
    assert repr(server) == "MCPServer(url='https://example.com/mcp', headers=['Authorization'])"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("x;y", "x_y"),
        ("__import__", "import_"),
        ("class", "class_"),
        ("", "it"),
        ("1", "it_1"),
        ("a.b", "a_b"),
        ("e\u202e", "e"),
    ],
)
def test_names_become_python_names(given, name):
    assert identifier(given, (), "it") == name


def test_a_person_is_asked_once_for_each_tool():
    asked = []

    def how(question):
        asked.append(question)
        return "y" if "write" in question else ""

    approve = AskOnce(how)
    calls = [
        ToolCall("fs", "write"),
        ToolCall("fs", "write"),
        ToolCall("fs", "drop"),
        ToolCall("fs", "read", is_read_only=True),
    ]
    assert [approve(call) for call in calls] == [True, True, False, True]
    assert len(asked) == 2
