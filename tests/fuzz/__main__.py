"""Fuzz what reads foreign text, for a while: `python -m tests.fuzz --minutes 10`.

With `--atheris` the targets are driven by coverage instead (`pip install atheris`). Exit code 1: something was found;
what it was, and the input, is on stderr.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
import traceback

from hypothesis import HealthCheck, settings

from . import linear, targets, texts

EXAMPLES = 200
"""Of a target before the next has its turn."""


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for how long (default: %(default)s)")
    parser.add_argument("--atheris", action="store_true", help="driven by coverage; needs atheris")
    parser.add_argument("--target", help="only this one")
    args = parser.parse_args()
    jobs = {name: job for name, job in all_jobs().items() if args.target in (None, name)}
    if args.atheris:
        return by_coverage(args, [target for target in targets.TARGETS if target.__name__ in jobs])
    return in_turns(jobs, time.monotonic() + 60 * args.minutes)


def all_jobs():
    """What is done in turns, by name: the targets, and the search for text that is not read in linear time."""
    profile = settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True
    )
    jobs = {target.__name__: profile(target) for target in targets.TARGETS}
    for name, (function, alphabet) in texts.FUNCTIONS.items():
        jobs[f"linear: {name}"] = search(function, alphabet)
    for module in linear.modules():
        for name, pattern in linear.patterns(module):
            jobs[f"linear: {name}"] = search(substitution(pattern), linear.alphabet(pattern))
    return jobs


def substitution(pattern: re.Pattern[str]):
    return lambda text: pattern.sub("", text)


def search(function, alphabet):
    """Look for a slow input, and then read five million characters of the slowest."""

    def job():
        worst = linear.search(function, alphabet, EXAMPLES // 4)
        linear.check(function, worst, [linear.WHOLE])

    return job


def in_turns(jobs, until):
    done, found = 0, {}
    while time.monotonic() < until and jobs.keys() - found:
        for name, job in jobs.items():
            if time.monotonic() > until:
                break
            if name in found:
                continue
            try:
                job()
            except Exception as error:  # noqa: BLE001 (that is what is looked for)
                found[name] = error
                print(f"{name}: FOUND", file=sys.stderr)
                traceback.print_exception(error)
            done += 1
            print(f"\r{done} turns, {len(found)} found: {name:70.70}", end="", file=sys.stderr, flush=True)
    print(f"\n{done} turns of {EXAMPLES} inputs; found: {', '.join(found) or 'nothing'}", file=sys.stderr)
    return 1 if found else 0


def by_coverage(args, chosen):
    seconds = max(1, int(60 * args.minutes / len(chosen)))
    if args.target is None:  # atheris ends its process
        command = [sys.executable, "-m", "tests.fuzz", "--atheris", "--minutes", str(seconds / 60), "--target"]
        failed = [t.__name__ for t in chosen if subprocess.run([*command, t.__name__], check=False).returncode]
        print(f"found: {', '.join(failed) or 'nothing'}", file=sys.stderr)
        return 1 if failed else 0
    import atheris

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}"], chosen[0].hypothesis.fuzz_one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
