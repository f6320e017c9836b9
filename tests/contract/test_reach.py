"""Everything that opens something outside of a kernel is classified: a new option cannot be forgotten."""

from __future__ import annotations

import pytest

from rlm_kernel.provisioners import kernelspecs

PROVISIONERS = {name: kernelspecs.provisioner_class(name) for name in kernelspecs.OUR_PROVISIONERS}


@pytest.mark.parametrize("name", PROVISIONERS)
def test_every_option_of_an_environment_says_whether_it_reaches_out(name):
    traits = PROVISIONERS[name].class_traits(environment=True)
    assert traits
    unclassified = [
        option for option, trait in traits.items() if not isinstance(trait.metadata.get("reaches_out"), bool)
        and not callable(trait.metadata.get("reaches_out"))
    ]  # fmt: skip
    assert unclassified == []


@pytest.mark.parametrize("name", PROVISIONERS)
def test_every_place_says_what_code_reaches_there(name):
    assert isinstance(PROVISIONERS[name].reach, str)
    assert (PROVISIONERS[name].reach == "") == (name == "rlm-docker")


def test_an_option_that_nobody_knows_reaches_out():
    assert kernelspecs.reaches_out("docker", "of a later version", 1)
