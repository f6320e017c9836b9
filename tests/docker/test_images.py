"""The image of a kernel: used as it is, or derived once; and what is said when there is none."""

from __future__ import annotations

import io
import tarfile
from uuid import uuid4

import pytest

from rlm_kernel.errors import ConfigError, KernelError

STOCK = "python:3.11-slim"


@pytest.fixture
def tagged(docker_engine):
    """Makes an image that the engine has never seen, and removes it. A killed run leaves its images behind."""
    made = []

    def build(name, dockerfile):
        dockerfile += f"LABEL made-for={uuid4().hex}\n"
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as packed:
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(dockerfile)
            packed.addfile(entry, io.BytesIO(dockerfile.encode()))
        archive.seek(0)
        steps = docker_engine.build(fileobj=archive, custom_context=True, tag=name, rm=True, decode=True)
        assert not [step for step in steps if "error" in step]
        made.append(name)
        return name

    yield build
    for name in made:
        docker_engine.remove_image(name, force=True)


def kernel_tags(docker_engine):
    return {tag for image in docker_engine.images("rlm-kernel") for tag in image["RepoTags"] or ()}


@pytest.mark.full
async def test_a_stock_image_gets_ipykernel_once(docker_session, docker_engine, tagged, capsys):
    image = tagged("rlm-test-stock", f"FROM {STOCK}\n")
    before = kernel_tags(docker_engine)
    async with await docker_session(image=image) as session:
        assert (await session.run("1 + 1")).value == "2"
    said = capsys.readouterr().err
    assert "Building an image from rlm-test-stock with ipykernel in it. This is done once." in said
    assert "Successfully installed" in said
    (new,) = kernel_tags(docker_engine) - before
    async with await docker_session(image=image) as session:
        assert (await session.run("1 + 1")).value == "2"
    assert "Building" not in capsys.readouterr().err
    assert kernel_tags(docker_engine) - before == {new}
    docker_engine.remove_image(new)


async def test_an_image_with_ipykernel_is_used_as_it_is(docker_session, docker_engine, container_of, tagged, capsys):
    async with await docker_session() as session:
        base = container_of(session)["Image"]
    image = tagged("rlm-test-own", f'FROM {base}\nENV GREETING=hello\nENTRYPOINT ["false"]\n')
    before = kernel_tags(docker_engine)
    async with await docker_session(image=image) as session:
        assert (await session.run("import os; os.environ['GREETING']")).value == "'hello'"
        assert container_of(session)["Image"] == docker_engine.inspect_image(image)["Id"]
    assert "Building" not in capsys.readouterr().err
    for tag in kernel_tags(docker_engine) - before:
        docker_engine.remove_image(tag)


async def test_packages_are_installed(docker_session):
    async with await docker_session(packages=["six==1.16.0"]) as session:
        assert (await session.run("import six; six.__version__")).value == "'1.16.0'"


async def test_an_image_that_is_nowhere_is_named(docker_session):
    with pytest.raises(
        ConfigError, match=r"There is no image 'rlm-test/there-is-none:9'.*cannot be pulled.*docker login"
    ):
        await docker_session(image="rlm-test/there-is-none:9")


async def test_a_build_that_fails_shows_the_end_of_its_log(docker_session):
    with pytest.raises(KernelError, match=r"(?s)could not be built.*no-such-package-of-anybody.*The log ends"):
        await docker_session(packages=["no-such-package-of-anybody"])


async def test_an_image_without_python_is_refused(docker_session, docker_engine):
    nothing = io.BytesIO()
    with tarfile.open(fileobj=nothing, mode="w") as packed:
        packed.addfile(tarfile.TarInfo("nothing"))
    docker_engine.import_image_from_data(nothing.getvalue(), repository="rlm-test-empty")
    try:
        with pytest.raises(ConfigError, match="the image has no python3"):
            await docker_session(image="rlm-test-empty")
    finally:
        docker_engine.remove_image("rlm-test-empty", force=True)


async def test_a_python_that_is_too_old_is_refused(docker_session, tagged):
    script = "#!/bin/sh\\nexit 3\\n"
    image = tagged(
        "rlm-test-old",
        f"FROM {STOCK}\nRUN printf '{script}' > /usr/local/bin/python3; chmod 755 /usr/local/bin/python3\n",
    )
    with pytest.raises(ConfigError, match="older than 3.10"):
        await docker_session(image=image)
