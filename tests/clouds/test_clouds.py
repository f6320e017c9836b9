"""Kernels in Prime, Daytona and E2B Sandboxes: what the suite of all places does not ask."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import textwrap

import pytest
from selection import mostly_full

from rlm import RLM, ScriptedLM
from rlm.logger import RLMLogger
from rlm_kernel.errors import ConfigError, KernelError
from rlm_kernel.installation import install_command
from rlm_kernel.provisioners.kernelspecs import environment

TIMEOUT = {"prime": {"timeout_minutes": 10}, "daytona": {"timeout": 600}, "e2b": {"timeout": 600}}
URL = {"prime": "PRIME_API_BASE_URL", "daytona": "DAYTONA_API_URL", "e2b": "E2B_API_URL"}


async def ended(cloud, count=None):
    async with asyncio.timeout(20):
        while cloud.running() or (count is not None and len(cloud.sandboxes) < count):
            await asyncio.sleep(0.01)


# -- what it gets, and what it does not get


async def test_a_kernel_answers_asks_and_leaves_no_sandbox(open_session, cloud):
    async with await open_session() as session:
        assert (await session.run("llm_query('hello')")).value == "'HELLO'"
        assert (await session.run("import os; os.listdir()")).value == "[]"
        assert len(cloud.running()) == 1
    await ended(cloud, 1)
    assert sum(call.startswith("DELETE") for call in cloud.calls) == 1


async def test_a_context_and_an_answer_of_many_pieces_travel_unchanged(open_session):
    async with await open_session() as session:
        await session.set("context", "ä€\n" * 2_000_000)
        assert (await session.run("len(context), sorted(set(context))")).value == "(6000000, ['\\n', 'ä', '€'])"
        cell = await session.run("answer_ = llm_query('x\\n' * 2_000_000)\nlen(answer_), sorted(set(answer_))")
        assert cell.value == "(4000000, ['\\n', 'X'])"


async def test_nothing_of_the_host_is_in_the_sandbox(open_session, cloud, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1")
    async with await open_session(env={"GREETING": "hello"}) as session:
        cell = await session.run(
            "import os\n"
            "print(os.environ['GREETING'], dict(os.environ))\n"
            "pid, top = os.getpid(), os.environ['MODAL_SANDBOX_ID']\n"
            "while pid > 1 and top in open(f'/proc/{pid}/environ').read():\n"
            "    print(open(f'/proc/{pid}/environ').read(), open(f'/proc/{pid}/cmdline').read())\n"
            "    pid = int(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1])\n"
            "try: import rlm_kernel\n"
            "except ImportError: print('no rlm_kernel')"
        )
    assert cell.status == "ok"
    assert cell.stdout.startswith("hello ")
    assert cell.stdout.endswith("no rlm_kernel\n")
    for secret in ("sk-secret", *(value for name, value in cloud.environment.items() if name.endswith("KEY"))):
        assert secret not in cell.stdout


async def test_prime_gets_what_was_asked_for(prime_emulator, open_prime):
    options = {
        "name": "mine",
        "docker_image": "python:3.12",
        "timeout_minutes": 3,
        "cpu": 2,
        "memory": "4g",
        "disk": 10,
    }
    async with await open_prime(**options, packages=["numpy>=2", "pandas"]):
        order = prime_emulator.orders[0]
    assert order["name"].startswith("mine-")
    assert {"docker_image": "python:3.12", "timeout_minutes": 3, "idle_timeout_minutes": 3}.items() <= order.items()
    assert {"cpu_cores": 2.0, "memory_gb": 4.0, "disk_size_gb": 10.0, "vm": True}.items() <= order.items()
    (installed,) = prime_emulator.installed
    assert installed.endswith("'ipykernel>=6.29,!=7.0.*' 'numpy>=2' pandas")


@pytest.mark.parametrize("network", [False, True])
async def test_prime_closes_the_network_before_the_kernel_starts(prime_emulator, open_prime, network):
    prime_emulator.unapplied = 2
    async with await open_prime(network_access=network):
        assert prime_emulator.policies == ([] if network else [{"allowlist": [], "denylist": None}])
        assert network or prime_emulator.unapplied < 0


async def test_daytona_gets_what_was_asked_for(daytona_emulator, open_daytona):
    options = {"name": "mine", "image": "python:3.12", "timeout": 61, "cpu": 2, "memory": 4, "disk": "10g"}
    async with await open_daytona(**options, packages=["numpy>=2"], target="eu", network_block_all=False):
        order = daytona_emulator.orders[0]
    assert order["name"].startswith("mine-")
    assert {"ttlMinutes": 2, "autoStopInterval": 2, "autoDeleteInterval": 0, "target": "eu"}.items() <= order.items()
    assert {"cpu": 2, "memory": 4, "disk": 10, "networkBlockAll": False}.items() <= order.items()
    recipe = order["buildInfo"]["dockerfileContent"]
    assert recipe.startswith("FROM python:3.12\n")
    assert "pip install 'ipykernel>=6.29,!=7.0.*' 'numpy>=2'\n" in recipe


async def test_e2b_gets_what_was_asked_for(e2b_emulator, open_e2b):
    async with await open_e2b(template="mine", timeout=61, allow_internet_access=True, packages=["numpy>=2"]):
        order = e2b_emulator.orders[0]
    assert {
        "templateID": "mine",
        "timeout": 61,
        "allow_internet_access": True,
        "autoPause": False,
    }.items() <= order.items()
    (installed,) = e2b_emulator.installed
    assert installed.endswith("'ipykernel>=6.29,!=7.0.*' 'numpy>=2'")
    assert e2b_emulator.networks == []


@pytest.mark.parametrize("bare", mostly_full([False, True], True))
async def test_the_network_of_e2b_is_open_for_pip_only(e2b_emulator, open_e2b, bare):
    e2b_emulator.bare = bare
    async with await open_e2b():
        assert e2b_emulator.orders[0]["allow_internet_access"] is False
        assert (e2b_emulator.networks, len(e2b_emulator.installed)) == ([True, False] if bare else [], bare)


@pytest.mark.parametrize("life", mostly_full([600, 60], 600))
async def test_e2b_extends_the_life_of_a_sandbox_while_its_host_lives(e2b_emulator, open_e2b, monkeypatch, life):
    monkeypatch.setattr("rlm_kernel.provisioners.e2b.sandbox.RENEW_SECONDS", 0.05)
    async with await open_e2b(timeout=life), asyncio.timeout(20):
        while len(e2b_emulator.times) < 4:
            await asyncio.sleep(0.01)
    assert e2b_emulator.times[0] == max(e2b_emulator.times) == min(life, 120)
    assert min(e2b_emulator.times) > 30


async def test_the_client_of_e2b_keeps_no_output(open_e2b):
    async with await open_e2b() as session:
        assert len((await session.run("print('x' * 100_000)")).stdout) == 100_001
        assert session._kernel._manager.provisioner._remote._command.stdout == ""


async def test_daytona_has_no_network_and_the_kernel_works(daytona_emulator, open_daytona):
    async with await open_daytona() as session:
        assert daytona_emulator.orders[0]["networkBlockAll"] is True
        if not daytona_emulator.sandboxes[0].isolated:
            pytest.skip("this machine does not let us make a network namespace")
        cell = await session.run("import socket\nsocket.create_connection(('127.0.0.1', 22), 1)")
        assert (cell.error.name, (await session.run("llm_query('yes')")).value) == ("OSError", "'YES'")


# -- how it ends

HOST = textwrap.dedent(
    """
    import asyncio, sys
    from rlm_kernel.provisioners.kernelspecs import environment
    from rlm_kernel.provisioners.relay import sandboxed
    from rlm_kernel.kernel.session import Session

    sandboxed.PATIENCE_SECONDS = 2.0

    async def main():
        session = await Session.open(environment(sys.argv[1], {}), None)
        cell = await session.run("import os, time; time.sleep(2.5); os.getpid()")
        print(cell.value, flush=True)
        if sys.argv[2] == "stay":
            await session.run("while True: print('x' * 1000)")

    asyncio.run(main())
    """
)


@pytest.mark.anywhere
def test_a_host_that_ends_without_closing_ends_its_sandbox(place, cloud):
    command = [sys.executable, "-c", HOST, place, "end"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == ("", 0)
    assert [sandbox.result.result().exitcode for sandbox in cloud.sandboxes] == [137]


@pytest.mark.anywhere
async def test_the_kernel_of_a_killed_host_ends_when_it_has_been_silent_for_long(place, cloud):
    host = subprocess.Popen([sys.executable, "-c", HOST, place, "stay"], stdout=subprocess.PIPE, text=True)
    assert host.stdout.readline().strip().isdigit()
    host.send_signal(signal.SIGKILL)
    host.communicate()
    (sandbox,) = cloud.running()
    command = list(sandbox.commands.values())[-1]
    async with asyncio.timeout(20):
        while not command.ended.done():
            await asyncio.sleep(0.05)
    # Minutes later the cloud ends the sandbox, as it was asked to.
    assert cloud.limit(sandbox) in {120, 300}


@pytest.mark.parametrize("end", ["expire", "terminate"])
async def test_a_sandbox_that_ends_in_a_cell_is_a_kernel_that_died_and_says_why(
    open_session, place, cloud, end, monkeypatch
):
    if place == "daytona" and end == "expire":  # it does not say why it destroyed a sandbox, only time does
        monkeypatch.setattr("rlm_kernel.provisioners.daytona.sandbox.MINUTE_SECONDS", 0)
    if place == "e2b" and end == "expire":
        monkeypatch.setattr("rlm_kernel.provisioners.e2b.sandbox.CLOCK_SECONDS", 600)
    async with await open_session(**TIMEOUT[place]) as session:
        running = asyncio.create_task(session.run("print('begun', flush=True)\nwhile True: pass"))
        await asyncio.sleep(0.2)
        getattr(cloud, end)(cloud.sandboxes[0])
        cell = await asyncio.wait_for(running, 20)
        assert (cell.status, cell.kernel_alive) == ("died", False)
        assert ("reached its timeout of" if end == "expire" else "from elsewhere") in session.why_it_died
        await session.restart()
        assert (await session.run("1 + 1")).value == "2"


@pytest.mark.anywhere
async def test_a_sandbox_that_takes_no_input_any_more_is_a_kernel_that_died(open_session, cloud, monkeypatch):
    monkeypatch.setattr("rlm_kernel.provisioners.relay.host_end.LAST_FRAMES_SECONDS", 0.1)
    monkeypatch.setattr("rlm_kernel.provisioners.relay.sandboxed.PATIENCE_SECONDS", 2.0)
    async with await open_session() as session:
        running = asyncio.create_task(session.run("print('begun', flush=True)\nllm_query('never heard')"))
        cloud.deaf = True
        assert (await asyncio.wait_for(running, 20)).status == "died"


@pytest.mark.anywhere
async def test_a_start_that_is_cancelled_leaves_no_sandbox(open_session, cloud):
    starting = asyncio.create_task(open_session())
    async with asyncio.timeout(20):
        while not cloud.orders:
            await asyncio.sleep(0.001)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await ended(cloud)


# -- why there is none


@pytest.mark.anywhere
async def test_a_missing_client_names_the_extra(open_session, place, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"environment='{place}'.*{re.escape(install_command(place))}"):
        await open_session()


async def test_no_key_says_how_to_get_one(open_session, place, monkeypatch):
    monkeypatch.delenv(f"{place.upper()}_API_KEY")
    with pytest.raises(ConfigError, match=f"does not know who you are.*set {place.upper()}_API_KEY"):
        await open_session()


async def test_a_key_that_is_not_known_says_so_and_is_not_shown(open_session, place, monkeypatch):
    monkeypatch.setenv(f"{place.upper()}_API_KEY", "not-to-be-seen")
    with pytest.raises(ConfigError, match=f"does not know who you are.*set {place.upper()}_API_KEY") as caught:
        await open_session()
    assert "not-to-be-seen" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (403, KernelError, "no sandbox for you now .*words of the cloud.*limits of your plan"),
        (422, ConfigError, "refuses an option of environment_kwargs: .*words of the cloud"),
        (500, KernelError, "did not give a sandbox .*words of the cloud.*status"),
    ],
)
async def test_what_the_cloud_says_is_passed_on_with_what_helps(open_session, cloud, status, error, says):
    cloud.refusal = status, "words of the cloud"
    with pytest.raises(error, match=rf"(?s){says}"):
        await open_session()


async def test_prime_wants_payment(prime_emulator, open_prime):
    prime_emulator.refusal = 402, "no credit"
    with pytest.raises(KernelError, match="add credit at"):
        await open_prime()


@pytest.mark.parametrize(("name", "base"), [("prime", "docker_image"), ("e2b", "template")])
async def test_packages_that_pip_cannot_install_leave_no_sandbox(request, name, base):
    emulator = request.getfixturevalue(f"{name}_emulator")
    emulator.pip = 1, "ERROR: No matching distribution found for no-such"
    with pytest.raises(KernelError, match=rf"(?s)No matching distribution.*`{base}` and `packages`"):
        await request.getfixturevalue(f"open_{name}")(packages=["no-such"])
    assert emulator.running() == []


async def test_an_answer_that_is_not_one_of_e2b_is_said(e2b_emulator, open_e2b, monkeypatch):
    e2b_emulator.refusal = 500, "an error of a proxy"
    monkeypatch.setattr(e2b_emulator, "error", lambda *error: [error])
    with pytest.raises(KernelError, match="E2B did not give a sandbox"):
        await open_e2b()


async def test_an_image_that_daytona_cannot_build_shows_its_log_and_leaves_no_sandbox(daytona_emulator, open_daytona):
    daytona_emulator.build_failure = "exit code 1"
    with pytest.raises(KernelError, match=r"(?s)could not build.*exit code 1.*`image` and `packages`"):
        await open_daytona(packages=["no-such"])
    assert daytona_emulator.running() == []


@pytest.mark.anywhere
async def test_an_unreachable_cloud_is_said(open_session, place, monkeypatch):
    monkeypatch.setenv(URL[place], "http://127.0.0.1:9/api")
    with pytest.raises(KernelError, match="did not give a sandbox.*Is the network there"):
        await open_session()


async def test_a_kernel_that_floods_its_host_is_ended(prime_emulator, open_prime, monkeypatch):
    async with await open_prime() as session:
        monkeypatch.setattr("rlm_kernel.provisioners.prime.sandbox.MAX_UNREAD_BYTES", 100)
        cell = await session.run("print('x' * 100_000)")
        assert cell.status == "died"
        assert "faster than they were taken" in session.why_it_died


@pytest.mark.anywhere
def test_an_rlm_and_its_child_answer_from_sandboxes_of_their_own(place, cloud):
    def reply(messages):
        asked_by_parent = "child" in str(messages[-1]["content"]) or "child" in str(messages[1]["content"])
        code = "FINAL(context.upper())" if asked_by_parent else "FINAL(rlm_query('child of ' + context))"
        return f"```repl\n{code}\n```"

    with RLM(ScriptedLM(reply), environment=place, max_depth=2) as rlm:
        assert rlm.completion("mine").response == "CHILD OF MINE"
    assert len(cloud.sandboxes) == 2
    assert cloud.running() == []


@pytest.mark.parametrize("name", mostly_full(["daytona", "e2b"], "daytona"))
async def test_a_key_in_the_options_is_in_no_log_and_no_error(name, request, tmp_path, monkeypatch):
    variable = f"{name.upper()}_API_KEY"
    key = request.getfixturevalue(f"{name}_emulator").environment[variable]
    monkeypatch.delenv(variable)
    logger = RLMLogger(log_dir=str(tmp_path))
    options = {"api_key": key}
    with RLM(
        ScriptedLM(["```repl\nFINAL('done')\n```"]), environment=name, environment_kwargs=options, logger=logger
    ) as rlm:
        assert (await rlm.acompletion("text")).response == "done"
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert written
    assert not any(key.encode() in file.read_bytes() for file in written)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("prime", "memory", 0),
        ("prime", "disk", "much"),
        ("prime", "timeout_minutes", 1441),
        ("prime", "cpu", "two"),
        ("daytona", "memory", float("nan")),
        ("daytona", "auto_stop_interval", -1),
        ("daytona", "timeout", 0),
        ("daytona", "packages", ["two\nlines"]),
        ("e2b", "timeout", 0),
        ("e2b", "template", 3),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_the_start(name, option, value):
    with pytest.raises(ConfigError, match=rf"environment_kwargs\['{option}'\]"):
        environment(name, {option: value})


def test_the_key_of_an_option_is_not_quoted():
    with pytest.raises(ConfigError) as caught:
        environment("daytona", {"api_key": "dtn-secret\n"})
    assert "dtn-secret" not in str(caught.value)
