import json
import socket
import threading

import pytest

from rlm_kernel.cli import checks
from rlm_kernel.installation import install_command


def by_name(done):
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_a_working_machine_is_exit_code_0_and_a_kernel_really_ran(rlm):
    done = rlm("doctor", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["works"] is True
    assert "first cell in" in by_name(done)["local kernel"]["detail"]
    assert "documents in a sandbox" in by_name(done)


def test_lines_have_marks_and_fixes(rlm):
    done = rlm("doctor")
    shown = done.stdout.decode()
    assert done.stderr == b""
    assert "✓ local kernel" in shown
    assert "\N{EN DASH} OPENAI_API_KEY" in shown
    assert "→ `rlm demo` downloads it (1.1 GB)" in shown
    assert "\x1b" not in shown


def test_the_extras_of_the_gateway_and_of_jupyter_and_the_client_of_ssh_have_rows(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(checks, "_version", lambda name: None)
    found = {check.name: check for check in checks.packages()}
    assert found["mcp"].fix == install_command("mcp")
    assert found["aiohttp"].fix == install_command("jupyter")
    assert found["ssh (client)"].fix == "install openssh-client"


def test_the_reference_in_the_same_environment_is_found(rlm):
    installed = rlm.folder / "site" / "rlms-0.1.3.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: rlms\nVersion: 0.1.3\n")
    rlm.environment["PYTHONPATH"] = str(installed.parent)
    done = rlm("doctor", "--json")
    assert done.returncode == 1
    assert "two environments" in by_name(done)["rlms"]["fix"]


def test_a_system_that_cannot_confine_the_reader_of_documents_is_named(monkeypatch):
    monkeypatch.setattr(checks.confinement, "missing", lambda: ("Landlock", "seccomp"))
    found = checks._documents()
    assert (found.state, found.detail) == ("absent", "the system has no Landlock and seccomp")
    assert "container" in found.fix


def test_a_key_is_named_but_never_shown(rlm):
    rlm.environment["OPENAI_API_KEY"] = "sk-very-secret"
    (rlm.folder / ".env").write_text("ANTHROPIC_API_KEY=sk-also-secret\n")
    done = rlm("doctor", "--json")
    assert by_name(done)["OPENAI_API_KEY"]["detail"] == "set in the environment"
    assert by_name(done)["ANTHROPIC_API_KEY"]["detail"] == "set in .env"
    assert b"secret" not in done.stdout + done.stderr


def test_a_wrong_model_file_is_broken_but_not_essential(rlm):
    folder = rlm.folder / "cache" / "models"
    folder.mkdir(parents=True)
    (folder / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf").write_bytes(b"half of it")
    done = rlm("doctor", "--json")
    assert by_name(done)["qwen2.5-coder-1.5b-instruct"]["state"] == "broken"
    assert done.returncode == 0


def test_no_kernel_is_exit_code_1(monkeypatch, capsys):
    from rlm_kernel.cli import main
    from rlm_kernel.errors import KernelError

    async def fails():
        raise KernelError("The kernel did not start.")

    monkeypatch.setattr(checks, "_first_cell", fails)
    assert main(["doctor"]) == 1
    assert "✗ local kernel" in capsys.readouterr().out


@pytest.fixture
def engine(tmp_path):
    """A Docker engine that is only its socket."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "d.sock"))
        server.listen()
        yield server


def test_an_engine_that_answers_is_ok(engine, monkeypatch):
    def serve():
        body = b'{"ApiVersion": "1.51"}'
        connection, _ = engine.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    thread = threading.Thread(target=serve)
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{engine.getsockname()}")
    found = checks.docker()[1]
    thread.join()
    assert (found.state, "1.51" in found.detail) == ("ok", True)


def test_an_engine_that_hangs_is_given_up(engine, monkeypatch):
    monkeypatch.setattr(checks, "DOCKER_SECONDS", 0.1)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{engine.getsockname()}")
    assert checks.docker()[1].state == "absent"


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:port", "tcp://[::1"])
def test_an_address_of_the_engine_that_is_none_is_a_finding_like_others(monkeypatch, host):
    monkeypatch.setenv("DOCKER_HOST", host)
    found = checks.docker()[1]
    assert (found.state, host in found.detail, "tcp://HOST:PORT" in found.fix) == ("broken", True, True)


def test_an_engine_that_is_reached_in_another_way_is_not_checked(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere")
    assert "ssh://" in checks.docker()[1].detail
