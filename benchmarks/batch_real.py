"""A batch over 40 files with the real 1.5B model on this machine: how many answers are right, tokens and time.

    python benchmarks/batch_real.py [FOLDER]

Each file is a log with some lines that hold the word ERROR; the question is how many. The folder holds the files, the
results and the logs; a second call with the same folder goes on.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES = 40
LINES = 300
QUESTION = "How many lines of the context contain the word ERROR? Answer with the number alone."
COMMAND = [sys.executable, "-m", "rlm_kernel.cli", "batch", "files", "--question", QUESTION, "--out", "out.jsonl"]
MODEL = ["--backend", "llamacpp", "--max-concurrent", "1", "--max-iterations", "6", "--max-timeout", "600"]


def main() -> None:
    """Write the files, run the batch, and print what came of it."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    right = write_files(folder / "files")
    started = time.monotonic()
    done = subprocess.run([*COMMAND, *MODEL], cwd=folder, check=False)
    seconds = time.monotonic() - started
    results = [json.loads(line) for line in (folder / "out.jsonl").read_text("utf-8").splitlines()]
    report = {
        "files": FILES,
        "right": sum(is_right(result, right) for result in results),
        "wrong": {r["id"]: (r["answer"], right[r["id"]]) for r in results if r["answer"] and not is_right(r, right)},
        "failed": {r["id"]: r["error"] for r in results if r["error"]},
        "input_tokens": sum(tokens(result, "total_input_tokens") for result in results),
        "output_tokens": sum(tokens(result, "total_output_tokens") for result in results),
        "seconds": round(seconds),
        "exit_code": done.returncode,
    }
    print(json.dumps(report, indent=1))


def write_files(folder: Path) -> dict[str, int]:
    """Write the same files each time. Returns how many lines of each hold the word."""
    folder.mkdir(parents=True, exist_ok=True)
    chance, right = random.Random(19), {}
    for number in range(FILES):
        count, name = chance.randint(1, 60), f"service-{number:02}.log"
        levels = ["ERROR"] * count + ["INFO"] * (LINES - count)
        chance.shuffle(levels)
        text = "\n".join(f"12:{n // 60:02}:{n % 60:02} {level} request {n}" for n, level in enumerate(levels))
        if not (folder / name).exists():  # a change would make it a new task
            (folder / name).write_text(text, "utf-8")
        right[name] = count
    return right


def is_right(result: dict[str, object], right: dict[str, int]) -> bool:
    """Whether an answer is the number."""
    return str(result["answer"]).strip().rstrip(".") == str(right[str(result["id"])])


def tokens(result: dict[str, object], kind: str) -> int:
    """Tokens of all models of a run."""
    usage = result["usage"]["model_usage_summaries"].values()  # type: ignore[index]
    return sum(int(model[kind]) for model in usage)


if __name__ == "__main__":
    main()
