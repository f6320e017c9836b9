"""Search of the gateway over a tree of many files: seconds, CPU seconds and memory of the index and of queries.

python benchmarks/gateway_search.py [--files 100000] [--tree FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from rlm_kernel.gateway.gateway import Caller, Gateway

BYTES = 4096
WORDS_PER_LINE = 10
CALLER = Caller()


def make_tree(root: Path, files: int) -> None:
    """Write files of 4 KB, 100 to a folder, of random words. It does nothing if they are there."""
    pick = random.Random(1)
    words = ["".join(pick.choices("abcdefghijklmnopqrstuvwxyz", k=pick.randint(3, 10))) for _ in range(20_000)]
    for number in range(files):
        path = root / f"d{number // 10_000}" / f"e{number // 100 % 100}" / f"file_{number}.txt"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (" ".join(pick.choices(words, k=WORDS_PER_LINE)) for _ in range(100))
        path.write_text("\n".join(lines)[: BYTES - 1] + "\n")


@contextlib.contextmanager
def measured(what: str) -> Iterator[None]:
    """Print what it took."""
    me = psutil.Process()
    wall, used = time.perf_counter(), me.cpu_times()
    yield
    seconds, now = time.perf_counter() - wall, me.cpu_times()
    cpu = now.user + now.system - used.user - used.system
    print(f"| {what} | {seconds:.2f} | {cpu:.2f} | {me.memory_info().rss / 1e6:.0f} |", flush=True)


async def measure(root: Path, data: Path) -> None:
    """Print a row for each operation."""
    gateway = Gateway(root, data)

    async def call(tool: str, **given: object) -> dict[str, object]:
        created = await gateway.call("rlm.session.create", {}, CALLER)
        session = {"session_id": created["session_id"]}
        await gateway.call("rlm.roots.set", session | {"roots": ["."]}, CALLER)
        result = await gateway.call(tool, session | {"scope": "."} | given, CALLER)
        assert result["success"], result
        return result

    index = gateway.services.index
    print("| what | seconds | CPU seconds | MB |\n|---|--:|--:|--:|")
    with measured("nothing"):
        pass
    with measured("index, from nothing"):
        index.refresh()
    with measured("refresh, nothing has changed"):
        index.refresh()
    some = root / "d0" / "e0" / "file_0.txt"
    text = some.read_text()
    some.write_text(text + "zebrafinch\n")
    with measured("refresh, one file has changed"):
        index.refresh()
    with measured("a query of four words"):
        await call("rlm.search.query", query=" ".join(text.split()[:4]))
    with measured("a query of sixteen words"):
        await call("rlm.search.query", query=" ".join(text.split()[:16]))
    with measured("a query of one word"):
        assert (await call("rlm.search.query", query="zebrafinch"))["results"]
    for what, pattern in (
        ("a literal that matches in one file", "zebrafinch"),
        ("a literal that matches nowhere", "zebrafinches"),
        ("an expression that matches nowhere", r"def \w+\(self, [a-z]+\) -> None"),
        ("an expression that matches nowhere, any case", r"(?i)foo[0-9]+bar|baz_qux$"),
    ):
        with measured(what):
            await call("rlm.search.regex", pattern=pattern)
    some.write_text(text)
    await gateway.close()


def print_size(data: Path) -> None:
    """Print how large the index is."""
    size = sum(path.stat().st_size for path in data.glob("index-*"))
    print(f"\nThe index on disk: {size / 1e9:.2f} GB.")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--tree", type=Path, help="where the files are made and kept; default: a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (given.tree or Path(temporary) / "tree").resolve()
        make_tree(root, given.files)
        asyncio.run(measure(root, Path(temporary) / "data"))
        print_size(Path(temporary) / "data")


if __name__ == "__main__":
    main()
