"""The documents in a fresh virtual environment that their own commands make: every shell block, every block of Python.

A person has a checkout, `uv`, npm and Docker, and types the blocks of the documents in their order. The installer of
uv, the providers and Modal are on loopback; packages come from the package index.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
import uv
from seeds.test_documents import BLOCKS, blocks, solve

ROOT = Path(__file__).parents[2]
SHELL = {place: block.code for place, block in blocks("bash").items()}
INSTALL, MODAL, DOCKER, ENV_FILE, VISUALIZER, VISUALIZER_AGAIN = SHELL
FIRST_CALL = "002:81"
TEST_TOOLS = ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout")
EXTRAS = ("litellm", "mcp", "modal", "xllamacpp")  # papermill brings aiohttp for some versions of Python
INSTALLER = f'mkdir -p "$UV_INSTALL_DIR" && ln -s {uv.find_uv_bin()} "$UV_INSTALL_DIR/uv"\n'
ACTIVATE = "source .venv/bin/activate\n"
PORT = 3001

pytestmark = [pytest.mark.full, pytest.mark.timeout(600), pytest.mark.no_engine]


@dataclass(frozen=True)
class Person:
    """Somebody with a shell in a checkout, whose virtual environment is not active."""

    checkout: Path
    environ: dict[str, str]

    def types(self, commands: str, **variables: str) -> str:
        """Run the commands, the first that fails ends them. Returns what they printed."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", commands],
            cwd=self.checkout, env={**self.environ, **variables}, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def runs(self, code: str, **variables: str) -> str:
        """Run Python code as a file in the checkout. Returns what it printed."""
        (self.checkout / "block.py").write_text(code, "utf-8")
        return self.types(f"{ACTIVATE}python block.py", **variables)

    def runs_the_blocks(self, which: str) -> None:
        """Run the blocks of Python that `-k which` selects, with what the environment has installed."""
        self.types(f"{ACTIVATE}python -m pytest -q -p no:cacheprovider tests/seeds/test_documents.py -k '{which}'")


@pytest.fixture(scope="module")
def person(tmp_path_factory) -> Iterator[Person]:
    folder = tmp_path_factory.mktemp("person")
    checkout, tools, installed = folder / "rlm", folder / "tools", folder / "installed"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    tools.mkdir()
    for program in filter(None, [*map(shutil.which, ("bash", "curl", "docker", "node", "npm")), python_3_12()]):
        (tools / Path(program).name).symlink_to(program)
    with served_installer(folder) as curl_home:
        environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environ |= {
            "PATH": f"{installed}:{tools}:/usr/bin:/bin",
            "CURL_HOME": str(curl_home),
            "UV_INSTALL_DIR": str(installed),
            "MODAL_CONFIG_PATH": str(folder / "modal.toml"),
        }
        yield Person(checkout, environ)


def python_3_12() -> str | None:
    """The Python that the documents ask for: of the path, or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    return next(map(str, pyenv.glob("3.12.*/bin/python3.12")), shutil.which("python3.12"))


@contextmanager
def served_installer(folder: Path) -> Iterator[Path]:
    """`https://astral.sh` on loopback, with an installer that takes the `uv` of the tests. Yields `CURL_HOME`."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=astral.sh",
         "-addext", "subjectAltName=DNS:astral.sh", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Installer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=partial(server.serve_forever, 0.05), daemon=True).start()
        route = f"astral.sh:443:127.0.0.1:{server.server_port}"
        (folder / ".curlrc").write_text(f'connect-to = "{route}"\ncacert = "{certificate}"\nnoproxy = "astral.sh"\n')
        yield folder
        server.shutdown()


class Installer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/uv/install.sh" else 404)
        self.end_headers()
        self.wfile.write(INSTALLER.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def bare(person) -> Person:
    """The person after the documents' installation."""
    # A checkout is a project already: `uv init` refuses, and the reader goes on with the next command.
    assert "uv init && uv venv --python 3.12\n" in SHELL[INSTALL]
    commands = SHELL[INSTALL].replace("uv init && ", "")
    person.types(commands if python_3_12() else commands.replace(" --python 3.12", ""))
    return person


@pytest.fixture(scope="module")
def with_extras(bare) -> Person:
    """The person after the documents' set-up of Modal, which has litellm as well."""
    from emulator import ModalEmulator

    with ModalEmulator() as modal:
        address = modal.environment["MODAL_SERVER_URL"]
        said = bare.types(f"{ACTIVATE}{SHELL[MODAL]}", BROWSER="true", MODAL_SERVER_URL=address)
    assert "Token verified successfully!" in said
    bare.types(f"{ACTIVATE}uv {hint(bare, backend='litellm', backend_kwargs={'model_name': 'openai/gpt-5'})}")
    return bare


def hint(person: Person, **arguments: object) -> str:
    """The command that the error of an `RLM` names, when a package of an extra is not installed."""
    code = f"import rlm\ntry: rlm.RLM(**{arguments})\nexcept rlm.ConfigError as error: print(error)"
    return person.runs(code, OPENAI_API_KEY="k").strip().partition("': ")[2]


def test_every_shell_block_of_the_documents_is_typed():
    named = {"install.sh": INSTALL, "modal setup": MODAL, "docker --version": DOCKER, "# .env": ENV_FILE}
    assert all(words in SHELL[place] for words, place in named.items())
    assert all("npm run dev" in SHELL[place] for place in (VISUALIZER, VISUALIZER_AGAIN))


def test_the_first_call_finds_its_key_in_the_documented_env_file(bare, provider):
    provider.script = solve
    (bare.checkout / ".env").write_text(SHELL[ENV_FILE], "utf-8")
    said = bare.runs(BLOCKS[FIRST_CALL].code, OPENAI_BASE_URL=provider.base_url)
    assert said == "12586269025\n"
    assert provider.requests[0].headers["authorization"] == "Bearer sk-..."


def test_the_bare_install_has_no_extras_and_names_the_commands_that_install_them(bare):
    code = f"from importlib.util import find_spec\nprint([name for name in {EXTRAS} if find_spec(name)])"
    assert bare.runs(code) == "[]\n"
    for extra, arguments in {"modal": {"environment": "modal"}, "litellm": {"backend": "litellm"}}.items():
        named = hint(bare, **{"backend_kwargs": {"model_name": "openai/gpt-5"}, **arguments})
        assert named == f"pip install -e '{bare.checkout}[{extra}]'"


def test_every_block_but_those_of_extras_runs_in_the_bare_install(bare, docker_engine):
    assert "Docker version" in bare.types(SHELL[DOCKER])
    bare.types(f"{ACTIVATE}uv pip install {' '.join(TEST_TOOLS)}")
    bare.runs_the_blocks("not modal")


@pytest.mark.parametrize("place", [VISUALIZER, VISUALIZER_AGAIN])
def test_the_visualizer_opens_at_the_documented_port_with_no_environment_active(bare, place):
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"another program listens at the port {PORT}")
    folder = bare.checkout / "visualizer"
    before = sorted(folder.iterdir())
    with subprocess.Popen(
        ["bash", "-c", SHELL[place]], cwd=bare.checkout, env=bare.environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as shell:  # fmt: skip
        try:
            said = list(until_the_address(shell.stdout))
            assert said[-1].startswith(f"http://127.0.0.1:{PORT}/"), said
            browser = build_opener(HTTPCookieProcessor())
            with browser.open(said[-1].strip().replace("127.0.0.1", "localhost")) as page:
                assert b"<html" in page.read()
        finally:
            os.killpg(shell.pid, 15)
    assert sorted(folder.iterdir()) == before


def until_the_address(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if line.startswith("http"):
            return


def test_the_blocks_of_modal_run_with_its_extra(with_extras):
    assert 'token_id = "ak-emulated"' in Path(with_extras.environ["MODAL_CONFIG_PATH"]).read_text("utf-8")
    with_extras.types(f"{ACTIVATE}uv pip install {' '.join(TEST_TOOLS)}")
    with_extras.runs_the_blocks("modal")


def test_the_backend_litellm_runs_with_its_extra(with_extras, provider):
    provider.script = solve
    arguments = {"backend": "litellm", "backend_kwargs": {"model_name": "openai/gpt-5"}}
    code = f"import rlm\nprint(rlm.RLM(**{json.dumps(arguments)}).completion('Say hello.').response)"
    assert with_extras.runs(code, **provider.environment) == "The context reads: Say hello.\n"
