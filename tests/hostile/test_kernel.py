"""What a kernel may send to its host, past the functions that it was given: the host stays small, and the run ends."""

from __future__ import annotations

import asyncio
import time

import pytest
from hostile.bounded import MAX_GROWTH, RAW, hosts
from places import MEASURED, SANDBOXES

from rlm_kernel.kernel import comm
from rlm_kernel.kernel.comm import HostComm, TooMuchError
from rlm_kernel.kernel.outputs import OutputCollector
from rlm_kernel.kernel.protocol import MAX_PROMPTS, WIRE, pack
from rlm_kernel.kernel.session import Session
from rlm_kernel.provisioners.kernelspecs import environment
from rlm_kernel.types import Answer


@pytest.fixture(scope="module", params=MEASURED)
def bounded_host(request, tmp_path_factory):
    yield from hosts(request, tmp_path_factory)


@pytest.fixture(scope="module", params=["local", *SANDBOXES])
def bounded_local_host(request, tmp_path_factory):
    yield from hosts(request, tmp_path_factory)


def test_nothing_is_held_of_a_large_frame(bounded_host):
    report = bounded_host.run(
        f"{RAW}\nkept = 1",
        "iopub.send_multipart([bytes(500 * MB)])",
        "send(b'{}', header=b'[' + b'1,' * 125 * MB + b'1]')",
        "send(b'{}', parent=b'{\"a\": \"' + bytes(250 * MB) + b'\"}', buffers=[bytes(250 * MB)])",
        "iopub_send('report', '', [bytes(500 * MB)])",
        "FINAL(kept)",
    )
    assert report["answer"] == "1"
    assert report["grown"] < MAX_GROWTH
    assert "its header has 250,000," in report["told"][2]
    assert "its parent header has 250,000," in report["told"][3]
    assert "report of the cell has 500,000,000 bytes" in report["told"][4]


@pytest.mark.parametrize("channel", [1, 2, 4], ids=["shell", "iopub", "control"])
def test_nothing_is_held_of_a_frame_that_is_written_into_a_connection(bounded_local_host, channel):
    frame = "b'\\x02' + struct.pack('!Q', 500 * MB), *[bytes(MB)] * 500"
    report = bounded_local_host.run("kept = 1", f"{RAW}\nwrite_raw({channel}, {frame})", "FINAL(kept)", cell_timeout=15)
    assert report["answer"] == "1"
    assert report["grown"] < MAX_GROWTH


def test_a_message_of_frames_without_end_ends_its_kernel_and_the_run_goes_on(bounded_local_host):
    attack = f"{RAW}\nwrite_raw(2, *[b'\\x01\\x01x' * 300_000] * 500)"
    report = bounded_local_host.run("kept = 1", attack, "FINAL(kept)", cell_timeout=None)
    assert report["answer"] == "1"
    assert report["grown"] < MAX_GROWTH
    assert "a message of 1,000,001 frames" in report["told"][1]
    assert "Still there: `kept`" in report["told"][1]


def test_a_report_of_a_million_names_is_refused_and_told(bounded_local_host):
    made = "dict.fromkeys(('final', 'answer', 'draft', 'final_json', 'answer_json'))"
    names = "dict.fromkeys(map(str, range(1_000_000)), 'int')"
    cells = [
        f"{RAW}\nimport json\niopub_send('report', '', [json.dumps({{**{made}, {report}}}).encode()])"
        for report in (f"'variables': {names}, 'restored': {{}}", f"'variables': {{}}, 'restored': {names}")
    ]
    report = bounded_local_host.run(*cells, "FINAL(1)")
    assert report["grown"] < MAX_GROWTH
    for told in report["told"]:
        assert "names 1,000,000 variables" in told or "too many values" in told


def test_ids_of_a_megabyte_are_not_kept(bounded_local_host):
    report = bounded_local_host.run(
        f"{RAW}\nfor n in range(300): iopub_send('ask', str(n) + 'x' * MB, [b'{{}}'])", "FINAL(1)"
    )
    assert report["grown"] < MAX_GROWTH
    assert "id of a call has 1,000,001 characters" in report["told"][0]


ASK = """
payload = b'{"kind": "llm_query", "prompts": ["x"], "model": null, "batch": false, "schema": null}'
for n in range(50_000): ask(f"x{n}", payload)
import time; time.sleep(600)
"""


def test_fifty_thousand_questions_at_a_time_are_bounded_and_the_time_holds(bounded_host):
    report = bounded_host.run(RAW + ASK, delay=3600, cell_timeout=None, max_timeout=6)
    assert report["error"] == "TimeoutExceededError"
    assert report["grown"] < MAX_GROWTH
    assert report["asked"] <= comm.MAX_UNDER_WAY


def test_a_flood_of_comms_and_a_forged_reply_are_bounded(bounded_local_host):
    flood = "for n in range(5_000): session.send(iopub, 'comm_msg', {'comm_id': 'x', 'data': {'y': 'z' * 20_000}})"
    reply = (
        "reply = {'status': 'ok', 'user_expressions': {str(n): 'x' * 1000 for n in range(100_000)}}\n"
        "session.send(iopub, 'execute_reply', reply, parent=guest.parent)\n"
        "parts = session.serialize(session.msg('execute_reply', reply, parent=guest.parent))\n"
        "framed = [piece for part in parts for piece in (b'\\x03' + struct.pack('!Q', len(part)), part)]\n"
        "write_raw(1, *framed, b'\\0\\0')"
    )
    report = bounded_local_host.run(f"{RAW}\nkept = 1\n{flood}", reply, "FINAL(kept)")
    assert report["answer"] == "1"
    assert report["grown"] < MAX_GROWTH


# -- the host's end of the wire, alone


class Never:
    async def answer(self, query):
        await asyncio.Event().wait()


def question(*prompts):
    return pack({"kind": "llm_query", "prompts": prompts, "model": None, "batch": True, "schema": None})


@pytest.fixture
async def crowd():
    """A bridge, and what it sent."""
    sent = []
    comm = HostComm(lambda op, call, payload: sent.append((op, call, payload)), Never())
    comm.cell_starts()
    yield comm, sent
    await comm.close()


def ask(bridge, call, payload):
    data = {"wire": WIRE, "op": "ask", "id": call}
    bridge.take_question({"content": {"data": data}, "buffers": [payload], "unread": 0})


async def test_questions_beyond_those_that_wait_are_refused_with_the_numbers(crowd):
    end, sent = crowd
    for number in range(comm.MAX_UNDER_WAY + comm.MAX_WAITING + 3):
        ask(end, f"q{number}", question("x"))
    refused = [payload for op, _, payload in sent if op == "answer"]
    assert len(refused) == 3
    assert f"at most {comm.MAX_WAITING:,} with" in refused[0].decode()
    assert len(end._under_way) == comm.MAX_UNDER_WAY


async def test_questions_wait_as_bytes_while_others_are_large(crowd):
    end, _ = crowd
    for number in range(4):
        ask(end, f"q{number}", question("x" * 9_000_000 + "\N{GRINNING FACE}"))
    assert (len(end._under_way), len(end._waiting)) == (2, 2)


async def test_a_question_of_too_many_prompts_is_refused_with_the_numbers(crowd):
    end, sent = crowd
    ask(end, "q1", question(*["x"] * (MAX_PROMPTS + 1)))
    await asyncio.sleep(0)
    assert f"{MAX_PROMPTS + 1:,} prompts; a question may have at most {MAX_PROMPTS:,}" in sent[0][2].decode()


async def test_only_the_latest_ids_are_remembered(crowd, monkeypatch):
    end, _ = crowd
    monkeypatch.setattr(comm, "MAX_REMEMBERED", 100)
    for number in range(1_000):
        ask(end, f"q{number}", b"no question")
    assert len(end._seen) == 100


async def test_an_id_without_bounds_is_refused(crowd):
    with pytest.raises(TooMuchError, match="1,000,000 characters"):
        ask(crowd[0], "x" * 1_000_000, question("x"))


# -- honest kernels lose nothing


async def test_a_host_that_stalls_loses_no_message():
    class Echo:
        async def answer(self, query):
            return [Answer(prompt) for prompt in query.prompts]

    shown = []
    async with await Session.open(environment("local", None), Echo(), shown.append) as session:
        code = "for n in range(20_000): get_ipython().display_pub.publish({'text/plain': str(n)})\nprint('done')"
        running = asyncio.create_task(session.run(code))
        await asyncio.sleep(0.1)
        stalled = asyncio.get_running_loop().time() + 2
        while asyncio.get_running_loop().time() < stalled:
            pass  # the loop does nothing else
        cell = await running
    assert cell.status == "ok"
    assert [output["data"]["text/plain"] for output in shown[:-1]] == [str(n) for n in range(20_000)]


def test_thirty_thousand_displays_of_one_name_are_updated_in_the_time_of_the_updates():
    collector = OutputCollector(head=30_000_000)
    shown = {"data": {"text/plain": "a"}, "metadata": {}, "transient": {"display_id": "d"}}
    for _ in range(30_000):
        collector.add("display_data", shown)
    for number in range(100_000):
        collector.add("update_display_data", {**shown, "data": {"text/plain": str(number % 10)}})
    assert {output["data"]["text/plain"] for output in collector.outputs()} == {"9"}


def test_many_small_pieces_of_a_stream_take_the_room_of_their_characters():
    import tracemalloc

    collector = OutputCollector(head=60_000, tail=20_000)
    tracemalloc.start()
    for number in range(200_000):
        collector.add("stream", {"name": "stdout", "text": f"{number % 90 + 10}"})
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 1_000_000
    assert collector.dropped > 300_000


def test_a_display_of_four_million_values_is_measured_in_little_time():
    shown = {"data": {"x/y": [[1] * 1_000] * 4_000}, "metadata": {}}
    collector = OutputCollector()
    started = time.process_time()
    collector.add("display_data", shown)
    assert time.process_time() - started < 1.2  # a loop in Python took 1.8
