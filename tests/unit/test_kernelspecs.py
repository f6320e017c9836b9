"""From the name of an environment and its options to a kernelspec: all of it is checked before anything starts."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from rlm_kernel.errors import ConfigError
from rlm_kernel.provisioners import kernelspecs
from rlm_kernel.provisioners.kernelspecs import AVAILABLE, Environment, environment, spec_folder
from rlm_kernel.provisioners.sandbox import walls


def test_local_needs_no_options():
    assert environment("local", None) == Environment("local", "rlm-local", {})
    assert environment("local", {}) == environment("local", None)


def test_options_go_where_they_are_used(tmp_path):
    options = {"env": {"A": "1"}, "cwd": str(tmp_path), "memory": "2g"}
    found = environment("local", {"setup_code": "import math", "cell_timeout": 30, **options})
    assert replace(found, modules=None) == Environment("local", "rlm-local", options, "import math", 30)


def test_an_option_that_is_none_is_not_given():
    assert environment("local", {"cwd": None, "memory": None, "setup_code": None}) == environment("local", None)


@pytest.mark.parametrize("memory", ["2g", "512m", "1.5 GiB", "200000k", 2**30, "1073741824"])
def test_a_size_may_be_written_in_many_ways(memory):
    assert environment("local", {"memory": memory}).options == {"memory": memory}


def test_the_users_options_are_left_alone():
    given = {"setup_code": "1", "memory": "2g"}
    environment("local", given)
    assert given == {"setup_code": "1", "memory": "2g"}


@pytest.mark.parametrize(
    "name", ["Local", "locl", "", "../rlm-local", "rlm-installed", "kubernetes", None, 3, ["local"]]
)
def test_an_unknown_environment_is_refused_with_the_list(name):
    with pytest.raises(ConfigError, match=r"Unknown environment.*'local', 'docker', 'modal'"):
        environment(name, None)


@pytest.mark.parametrize(("name", "kernelspec"), [*AVAILABLE.items(), *((name, name) for name in AVAILABLE.values())])
def test_ours_have_two_names(name, kernelspec, monkeypatch):
    monkeypatch.setenv("JUPYTER_SERVER_URL", "http://localhost:1")
    monkeypatch.setenv("RLM_SSH_HOST", "nowhere")
    assert environment(name, None) == Environment(name, kernelspec, {})


def test_an_unknown_option_is_refused_with_the_list():
    expected = r"no option 'image' for 'local'\. Allowed: setup_code, cell_timeout, pool, .*cwd, env, fork, memory"
    with pytest.raises(ConfigError, match=expected):
        environment("local", {"image": "python:3.11-slim"})


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("setup_code", 5, "a string of Python code, not int"),
        ("setup_code", ["import math"], "a string of Python code, not list"),
        ("cell_timeout", "30", "a number of seconds, not str"),
        ("cell_timeout", True, "a number of seconds, not bool"),
        ("cell_timeout", 0, "greater than 0"),
        ("cell_timeout", -1.5, "greater than 0"),
        ("cell_timeout", float("nan"), "greater than 0"),
        ("pool", 1.5, "a number of kernels, not float"),
        ("pool", True, "a number of kernels, not bool"),
        ("pool", -1, "from 0 to 100"),
        ("memory", "much", "write it like '2g'"),
        ("memory", "2 giga", "write it like '2g'"),
        ("memory", "-2g", "write it like '2g'"),
        ("memory", "60m", "give it 128m at least"),
        ("memory", 1, "give it 128m at least"),
        ("memory", "9999999t", "more than any machine has"),
        ("memory", "9" * 400, "more than any machine has"),
        ("env", {"A=B": "x"}, "'A=B' cannot be set"),
        ("env", {"": "x"}, "a name is not empty"),
        ("env", {"A": "x\0y"}, "nothing has a NUL"),
        ("memory", 1.5, "memory"),
        ("memory", ["2g"], "memory"),
        ("cwd", "/there/is/no/such/folder", "not a directory"),
        ("cwd", 5, "cwd"),
        ("env", ["A=1"], "env"),
        ("env", {"A": 1}, "env"),
        ("env", {1: "A"}, "env"),
        ("env", "A=1", "env"),
    ],
)
def test_a_wrong_value_names_the_option_and_what_it_must_be(option, value, says):
    with pytest.raises(ConfigError) as caught:
        environment("local", {option: value})
    assert option in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("place", "options", "says"),
    [
        ("local", {"mounts": {"/": "/all"}}, "needs a sandbox"),
        ("local", {"mounts": {"/no/folder": "/data"}, "sandbox": "bwrap"}, "/no/folder does not exist"),
        ("local", {"mounts": {"/": "/all:rx"}, "sandbox": "bwrap"}, "':ro' or ':rw'"),
        ("jupyter", {}, "JUPYTER_SERVER_URL"),
        ("ssh", {}, "RLM_SSH_HOST"),
    ],
)
def test_options_that_are_missing_are_asked_for_before_a_run(place, options, says, monkeypatch):
    monkeypatch.setattr(walls, "trouble", lambda _: "")
    monkeypatch.delenv("JUPYTER_SERVER_URL", raising=False)
    monkeypatch.delenv("RLM_SSH_HOST", raising=False)
    with pytest.raises(ConfigError, match=re.escape(says)):
        environment(place, options)


def test_a_value_that_needs_more_memory_is_told_apart_from_one_of_the_wrong_kind():
    place = environment("local", {})
    assert "raise environment_kwargs['memory']" in place.how_to_read("MemoryError: ")
    assert "Give what you need of it as text" in place.how_to_read("ValueError: 3")


def test_an_unknown_option_of_a_container_is_refused_with_the_list():
    expected = r"no option 'cpu' for 'docker'\. Allowed: .*cpus, env, gpus, image, memory, mounts, network, packages"
    with pytest.raises(ConfigError, match=expected):
        environment("docker", {"cpu": 2})


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("image", 5, "image"),
        ("packages", 5, "packages"),
        ("packages", ["numpy\n--index-url=x"], "one line of a requirements file"),
        ("packages", [" "], "one line of a requirements file"),
        ("network", 5, "network"),
        ("mounts", ["/data"], "mounts"),
        ("mounts", {"/data": "in"}, "write {'/data': '/in'}"),
        ("mounts", {"/data": "/"}, "write {'/data': '/in'}"),
        ("mounts", {"/data": "/rlm"}, "write {'/data': '/in'}"),
        ("mounts", {"/data": "/in:rx"}, "':ro' or ':rw'"),
        ("memory", "much", "write it like '2g'"),
        ("memory", "6m", "give it 64m at least"),
        ("cpus", 0, "at least 0.01"),
        ("cpus", "two", "cpus"),
        ("gpus", "some", "a number, 'all' or 'device=0,1'"),
        ("transport", "tcp", "transport"),
        ("env", {"A": 1}, "env"),
    ],
)
def test_a_wrong_value_of_a_container_names_the_option_and_what_it_must_be(option, value, says):
    with pytest.raises(ConfigError) as caught:
        environment("docker", {option: value})
    assert option in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("options", ["setup_code", ["setup_code"], 5])
def test_options_that_are_no_dict_are_refused(options):
    with pytest.raises(ConfigError, match="environment_kwargs is a dict"):
        environment("local", options)


def test_a_file_may_be_no_working_directory(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="not a directory"):
        environment("local", {"cwd": str(file)})


@pytest.mark.parametrize("name", AVAILABLE)
def test_the_kernelspec_lies_in_the_package_and_is_valid(name):
    fields = json.loads((spec_folder(AVAILABLE[name]) / "kernel.json").read_text("utf-8"))
    assert "{connection_file}" in fields["argv"]
    assert fields["metadata"]["kernel_provisioner"]["provisioner_name"] == AVAILABLE[name]


def test_a_kernelspec_that_is_missing_says_what_to_do(monkeypatch):
    monkeypatch.setattr(kernelspecs, "__file__", "/nowhere/rlm_kernel/provisioners/kernelspecs.py")
    with pytest.raises(ConfigError, match="install rlm-kernel again"):
        spec_folder("rlm-local")


def test_the_loaded_kernelspec_carries_the_options(tmp_path):
    spec = environment("local", {"cwd": str(tmp_path), "setup_code": "1"}).load()
    expected = {"cwd": str(tmp_path), "private_cwd": True, "env": {"PYTHONHASHSEED": "0"}}
    assert spec.metadata["kernel_provisioner"]["config"] == expected
    assert spec.language == "python"


def test_a_seed_and_the_users_variables_go_before_those_of_the_kernelspec():
    def env(seed, **options):
        spec = environment("docker", options).load(seed)
        return spec.metadata["kernel_provisioner"]["config"]["env"]

    assert env(None) == {"PYTHONHASHSEED": "0"}
    assert env(7, env={"A": "1"}) == {"PYTHONHASHSEED": "7", "A": "1"}
    assert env(7, env={"PYTHONHASHSEED": "random"}) == {"PYTHONHASHSEED": "random"}


def test_a_kernelspec_of_the_project_or_the_user_cannot_stand_in_for_ours(tmp_path, monkeypatch):
    for place in ("environments", "kernels"):
        (tmp_path / place / "rlm-local").mkdir(parents=True)
        (tmp_path / place / "rlm-local" / "kernel.json").write_text('{"argv": ["evil"]}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "evil" not in environment("local", None).load().argv
