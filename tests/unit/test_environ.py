"""Which environment variables a kernel may see."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.provisioners.environ import private_directories, scrub_environ

SECRETS = [
    *["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "PORTKEY_API_KEY", "OPENROUTER_API_KEY", "AZURE_OPENAI_KEY", "HF_TOKEN"],
    *["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "MODAL_TOKEN_SECRET", "GH_TOKEN"],
    *["PRIME_API_KEY", "DAYTONA_API_KEY", "DAYTONA_JWT_TOKEN", "E2B_API_KEY"],
    *[
        "DATABASE_URL",
        "PGPASSWORD",
        "SSH_AUTH_SOCK",
        "KUBECONFIG",
        "NETRC",
        "PIP_INDEX_URL",
        "UV_INDEX_URL",
        "MY_THING",
    ],
    *["OPENAI_BASE_URL", "JUPYTER_TOKEN", "JPY_PARENT_PID", "IPYTHONDIR", "JUPYTER_PATH", "PYTHONSTARTUP"],
    *["LD_PRELOAD", "PYTHONINSPECT", "BASH_ENV"],
]
PASSING = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]


@pytest.mark.parametrize("name", SECRETS)
def test_what_is_not_on_the_list_does_not_pass(name):
    assert scrub_environ({name: "hidden", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize("name", PASSING)
def test_what_a_kernel_needs_passes_unchanged(name):
    assert scrub_environ({name: "a:b@c"}) == {name: "a:b@c"}


@pytest.mark.parametrize(
    ("proxy", "seen"),
    [
        ("http://proxy.example:8080", "http://proxy.example:8080"),
        ("http://user:pass@proxy.example:8080/", "http://proxy.example:8080/"),
        ("http://user@proxy.example", "http://proxy.example"),
        ("http://user:p@ss@proxy.example", "http://proxy.example"),
        ("socks5h://user:pass@[::1]:1080", "socks5h://[::1]:1080"),
        ("user:pass@proxy.example:8080", "proxy.example:8080"),
        ("proxy.example:8080", "proxy.example:8080"),
        ("http:/user:pass@proxy.example", "proxy.example"),
        ("http:///user:pass@proxy.example", "http://proxy.example"),
        ("http://[user:pass@proxy.example", "http://proxy.example"),
        ("user:pass@http://proxy.example", "http://proxy.example"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY", "ftp_proxy"])
def test_a_proxy_passes_without_its_password(name, proxy, seen):
    assert scrub_environ({name: proxy}) == {name: seen}


@given(st.text(), st.text("ab:/@[]?#%", max_size=20), st.sampled_from(["", "http://", "socks5://", "//"]))
def test_nothing_before_an_at_sign_is_ever_left_of_a_proxy(secret, rest, scheme):
    seen = scrub_environ({"HTTP_PROXY": f"{scheme}user:hunter2{secret}@{rest}"})["HTTP_PROXY"]
    assert "hunter2" not in seen
    assert "@" not in seen


def test_a_list_of_hosts_without_proxy_passes():
    assert scrub_environ({"NO_PROXY": "localhost,.example", "no_proxy": "*"}) == {
        "NO_PROXY": "localhost,.example",
        "no_proxy": "*",
    }


@given(st.dictionaries(st.text(), st.text()))
def test_any_environment_can_be_scrubbed(environ):
    allowed = scrub_environ(environ)
    assert allowed.keys() <= environ.keys()
    assert scrub_environ(allowed) == allowed


def test_the_given_environment_is_left_alone():
    environ = {"OPENAI_API_KEY": "k", "HTTP_PROXY": "http://u:p@h"}
    scrub_environ(environ)
    assert environ == {"OPENAI_API_KEY": "k", "HTTP_PROXY": "http://u:p@h"}


def test_jupyter_and_ipython_get_directories_of_their_own():
    directories = private_directories(Path("base"))
    assert set(directories) == {"IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"}
    assert all(Path(directory).parent == Path("base") for directory in directories.values())
