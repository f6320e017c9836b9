"""What the code that a model writes may try from inside of its kernel."""

from __future__ import annotations

import pytest
from hostile.bounded import MAX_GROWTH, PATIENCE, hosts
from places import EVERYWHERE


@pytest.fixture(scope="module", params=EVERYWHERE[:3])
def greedy_host(request, tmp_path_factory):
    yield from hosts(request, tmp_path_factory)


@pytest.fixture(scope="module", params=["local"])
def greedy_local_host(request, tmp_path_factory):
    yield from hosts(request, tmp_path_factory)


def test_four_hundred_megabytes_are_told_to_the_cell_or_shown_by_their_ends(greedy_host):
    report = greedy_host.run(
        "huge = 'x' * 400_000_000\nprint(huge)",
        "from IPython.display import display\ndisplay({'text/html': huge}, raw=True)",
        "FINAL(huge)",
        "answer['content'] = huge; answer['ready'] = True",
        "answer['content'] = ''; answer['ready'] = False\nFINAL(len(huge))",
        cell_timeout=60,
        max_timeout=110,
    )
    printed, displayed, final, ready = report["told"]
    assert report["answer"] == "400000000"
    assert report["grown"] < MAX_GROWTH
    assert "characters of output were not kept" in printed + displayed  # ipykernel waits ten seconds for a stream
    for told in (final, ready):
        assert "it has 400,000,000 bytes; an answer may have at most 20,000,000" in told


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("llm_query('x' * 104_857_600)", "bytes; a question may have at most 20,000,000"),
        (
            "import sys; sys.modules['rlm_guest'].MAX_QUESTION_BYTES = 10**12\nllm_query('x' * 104_857_600)",
            "this question has 104,857,",
        ),
        ("tool('x' * 300_000_000)", "this call has 300,000,"),
        ("raise ValueError('x' * 100_000_000)", "too many to be read"),
        ("llm_query_batched(['x'] * 4_000_000)", "takes at most 200,000 prompts at a time, not 4,000,000"),
    ],
    ids=["a prompt", "a prompt past the guest", "arguments of a tool", "an error", "prompts of a batch"],
)
def test_what_is_too_large_is_an_error_in_the_cell(greedy_local_host, code, words):
    report = greedy_local_host.run("kept = 1", code, "FINAL(kept)")
    assert report["answer"] == "1"
    assert report["grown"] < MAX_GROWTH
    assert words in report["told"][1]


def test_eight_large_questions_at_a_time_wait_for_one_another(greedy_host):
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def ask(n):\n"
        "    try: return llm_query('x' * 19_000_000 + chr(128512))\n"
        "    except ValueError as error: return str(error)\n"
        "with ThreadPoolExecutor(8) as pool: print(set(pool.map(ask, range(8))))"
    )
    report = greedy_host.run(code, "FINAL(1)", cell_timeout=100, max_timeout=110)
    assert report["grown"] < MAX_GROWTH
    assert "short" in report["told"][0]


def test_a_batch_of_more_than_a_question_holds_is_asked_in_several(greedy_local_host):
    report = greedy_local_host.run("FINAL(len(llm_query_batched(['x' * 100_000] * 300 + ['y'] * 3_000)))")
    assert report["answer"] == "3300"
    assert report["asked"] == 3300
    assert report["grown"] < MAX_GROWTH


FLOODS = {
    "prompts": (
        "import sys; sys.modules['rlm_guest'].MAX_BATCH = 10**9\n"
        "while True: llm_query_batched(['x'] * 1_000_000, model='no such')"
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(100) as pool: list(pool.map(llm_query, map(str, range(100_000))))"
    ),
    "prints": "while True: print('x', flush=True)",
    "updates": (
        "from IPython.display import display\n"
        "for n in range(3_000): display({'text/plain': 'a'}, raw=True, display_id='d')\n"
        "while True: display({'text/plain': 'b'}, raw=True, display_id='d', update=True)"
    ),
    "clears": "from IPython.display import clear_output\nwhile True: print('x'); clear_output(wait=True)",
}


@pytest.mark.parametrize("code", FLOODS.values(), ids=FLOODS)
def test_a_flood_ends_with_the_time_of_the_run(greedy_local_host, code):
    report = greedy_local_host.run(code, cell_timeout=None, max_timeout=4)
    assert report["error"] == "TimeoutExceededError"
    assert report["grown"] < MAX_GROWTH
    assert report["seconds"] < 4 + 5 * PATIENCE


@pytest.mark.parametrize("code", FLOODS.values(), ids=FLOODS)
def test_a_flood_ends_with_the_time_of_the_cell(greedy_local_host, code):
    report = greedy_local_host.run("kept = 1", code, "FINAL(kept)", cell_timeout=2, max_timeout=60)
    assert report["answer"] == "1"
    assert "took too long" in report["told"][1] or "a cell may ask at most" in report["told"][1]
