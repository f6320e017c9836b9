"""What a container is allowed, what code in it can reach, and that it does not outlive its host."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

TRANSPORTS = ["ipc", "relay"]


async def test_the_engine_shows_the_hardening(docker_session, container_of):
    async with await docker_session(memory="512m", cpus=1) as session:
        details = container_of(session)
    allowed = details["HostConfig"]
    assert allowed["NetworkMode"] == "none"
    assert allowed["CapDrop"] == ["ALL"]
    assert not allowed["CapAdd"]
    assert not allowed["Privileged"]
    assert allowed["SecurityOpt"] == ["no-new-privileges"]
    assert allowed["ReadonlyRootfs"]
    assert allowed["PidsLimit"] == 512
    assert allowed["Memory"] == allowed["MemorySwap"] == 512 * 2**20
    assert allowed["NanoCpus"] == 10**9
    assert allowed["IpcMode"] == "private"
    assert allowed["AutoRemove"]
    assert details["Config"]["StopSignal"] == "SIGKILL"
    assert details["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
    assert [(mount["Destination"], mount["RW"]) for mount in details["Mounts"]] == [("/rlm", False)]
    assert sorted(allowed["Tmpfs"]) == ["/home/rlm", "/tmp", "/work"]


async def test_over_the_relay_nothing_at_all_is_mounted(docker_session, container_of):
    async with await docker_session(transport="relay") as session:
        assert container_of(session)["Mounts"] == []


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_from_inside_there_is_no_way_out(docker_session, monkeypatch, tmp_path, transport):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1")
    (tmp_path / "secret").write_text("sk-secret-2")
    async with await docker_session() as other, await docker_session(transport=transport) as session:
        await other.run("open('/tmp/secret', 'w').write('sk-secret-3')")
        cell = await session.run(
            "import os, socket, subprocess\n"
            "print(os.listdir('/sys/class/net'), open('/proc/net/route').read().count('\\n'))\n"
            "for address in ('1.1.1.1', '172.17.0.1', '127.0.0.1'):\n"
            "    try: socket.create_connection((address, 80), timeout=2)\n"
            "    except OSError as error: print(address, type(error).__name__)\n"
            "try: socket.getaddrinfo('example.org', 443)\n"
            "except OSError as error: print(type(error).__name__)\n"
            f"print(os.path.exists({str(tmp_path)!r}), os.path.exists('/var/run/docker.sock'), os.listdir('/tmp'))\n"
            "print(dict(os.environ), open('/proc/self/environ').read())\n"
            "print([open(f'/proc/{p}/cmdline').read() for p in os.listdir('/proc') if p.isdigit()])\n"
        )
    assert cell.status == "ok"
    first, *attempts, lookup, files, _, _ = cell.stdout.splitlines()
    assert first == "['lo'] 1"
    assert attempts == ["1.1.1.1 OSError", "172.17.0.1 OSError", "127.0.0.1 ConnectionRefusedError"]
    assert lookup == "gaierror"
    assert files.startswith("False False [")
    assert "secret" not in cell.stdout


@pytest.mark.parametrize("path", ["/etc/x", "/usr/lib/x", "/x", "/rlm/x", "/var/tmp/x"])
async def test_nothing_but_the_temporary_directories_can_be_written(docker_session, path):
    async with await docker_session() as session:
        cell = await session.run(f"open({path!r}, 'w')")
        assert "Read-only file system" in cell.error.message
        ours = "for d in ('/tmp', '/work', '/home/rlm'): print(open(d + '/x', 'w').write('yes'))"
        assert (await session.run(ours)).stdout == "3\n3\n3\n"


async def test_no_process_gains_a_privilege(docker_session):
    async with await docker_session() as session:
        cell = await session.run("!grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status")
    facts = dict(line.split(":") for line in cell.stdout.splitlines())
    assert {facts[name].strip() for name in ("CapPrm", "CapEff", "CapBnd")} == {"0000000000000000"}
    assert facts["NoNewPrivs"].strip() == "1"
    assert facts["Seccomp"].strip() == "2"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_watchdog_can_neither_be_stopped_nor_killed_nor_traced(docker_session, transport):
    async with await docker_session(transport=transport) as session:
        cell = await session.run(
            "import ctypes, os, signal\n"
            "os.kill(1, signal.SIGSTOP); os.kill(1, signal.SIGKILL)\n"
            "print(open('/proc/1/status').read().split('State:')[1].split()[0])\n"
            "print(ctypes.CDLL(None).ptrace(16, 1, 0, 0))\n"
            "for name in ('environ', 'mem', 'fd/0', 'fd/1'):\n"
            "    try: open(f'/proc/1/{name}', 'rb').read(1)\n"
            "    except PermissionError: print('refused')\n"
        )
        state, *others = cell.stdout.split()
        assert state in "SR"  # it waits or works, and is not stopped
        assert others == ["-1", "refused", "refused", "refused", "refused"]


async def test_orphans_are_buried(docker_session):
    async with await docker_session() as session:
        cell = await session.run(
            "import os, subprocess, time\n"
            "for _ in range(20): subprocess.run(['sh', '-c', 'sleep 0 &'])\n"
            "def processes(): return sorted(int(p) for p in os.listdir('/proc') if p.isdigit())\n"
            "for _ in range(100):\n"
            "    if len(processes()) <= 2: break\n"
            "    time.sleep(0.1)\n"
            "processes()"
        )
    assert len(ast.literal_eval(cell.value)) == 2


async def test_a_fork_bomb_is_bounded(docker_session):
    async with await docker_session() as session:
        cell = await session.run(
            "import subprocess\n"
            "bombs = []\n"
            "try:\n"
            "    while len(bombs) < 2000: bombs.append(subprocess.Popen(['sleep', '600']))\n"
            "except OSError as error: print(type(error).__name__)\n"
            "print(len(bombs) < 512)\n"
            "for bomb in bombs: bomb.kill()\n"
            "for bomb in bombs: bomb.wait()"
        )
        assert cell.stdout == "BlockingIOError\nTrue\n"
        assert (await session.run("1 + 1")).value == "2"


async def test_mounts_are_read_only_unless_asked_otherwise(docker_session, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "file").write_text("hello")
    mounts = {str(tmp_path / "in"): "/in", str(tmp_path / "out"): "/out:rw"}
    async with await docker_session(mounts=mounts) as session:
        assert (await session.run("open('/in/file').read()")).value == "'hello'"
        assert "Read-only file system" in (await session.run("open('/in/file', 'w')")).error.message
        await session.run("open('/out/file', 'w').write('back')")
    written = tmp_path / "out" / "file"
    assert (written.read_text(), written.stat().st_uid) == ("back", os.getuid())


async def test_a_network_is_there_when_it_is_asked_for(docker_session):
    async with await docker_session(network=True) as session:
        assert "eth0" in (await session.run("import os; os.listdir('/sys/class/net')")).value


async def test_variables_of_the_environment_are_the_ones_asked_for(docker_session):
    async with await docker_session(env={"GREETING": "hello"}) as session:
        assert (await session.run("import os; os.environ['GREETING'], os.getcwd()")).value == "('hello', '/work')"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_kernel_that_takes_too_much_memory_dies_with_a_reason(docker_session, transport):
    async with await docker_session(memory="300m", transport=transport) as session:
        cell = await session.run("data = bytearray(600_000_000)")
        assert (cell.status, cell.kernel_alive) == ("died", False)
        assert "used all of its memory, 300m" in session.why_it_died
        await session.restart()
        assert (await session.run("1 + 1")).value == "2"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_container_removed_by_hand_is_replaced(docker_session, docker_engine, container_of, transport):
    async with await docker_session(transport=transport) as session:
        name = container_of(session)["Id"]
        running = asyncio.create_task(session.run("import time; time.sleep(60)"))
        await asyncio.to_thread(docker_engine.remove_container, name, force=True)
        cell = await running
        assert (cell.status, cell.kernel_alive) == ("died", False)
        await session.restart()
        assert (await session.run("1 + 1")).value == "2"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_closing_removes_the_container(docker_session, container_of, gone, transport):
    async with await docker_session(transport=transport) as session:
        name = container_of(session)["Id"]
    await gone(name)


async def test_a_cancelled_start_leaves_no_container(docker_session, docker_engine):
    for delay in (0.01, 0.05, 0.1, 0.2, 0.4):
        opening = asyncio.create_task(docker_session())
        await asyncio.sleep(delay)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        if not opening.cancelled():
            await opening.result().close()
    owner = f"rlm-kernel.host={os.uname().nodename}:{os.getpid()}"
    async with asyncio.timeout(15):
        while docker_engine.containers(all=True, filters={"label": owner}):
            await asyncio.sleep(0.05)


HOST = textwrap.dedent(
    """
    import asyncio, sys
    from rlm_kernel.provisioners.kernelspecs import environment
    from rlm_kernel.kernel.session import Session

    async def main():
        session = await Session.open(environment("docker", {"transport": sys.argv[1]}), None)
        print(session._kernel._manager.provisioner._container.id, flush=True)
        await session.run(
            "import os, signal, subprocess\\n"
            "subprocess.Popen(['sleep', '600'], start_new_session=True)\\n"
            "os.kill(1, signal.SIGSTOP)\\n"
            "while True:\\n"
            "    try: open('/tmp/full', 'ab').write(b'x' * 1000)\\n"
            "    except (KeyboardInterrupt, OSError): pass"
        )

    asyncio.run(main())
    """
)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_killed_host_leaves_no_container(docker_engine, gone, transport):
    with subprocess.Popen([sys.executable, "-c", HOST, transport], stdout=subprocess.PIPE, text=True) as host:
        name = host.stdout.readline().strip()
        assert docker_engine.inspect_container(name)["State"]["Running"]
        os.kill(host.pid, signal.SIGKILL)
        host.wait()
    await gone(name)
