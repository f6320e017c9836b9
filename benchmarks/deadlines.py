"""How long after its deadline a run ends whose cell floods the host, and how much memory the host takes meanwhile.

    python benchmarks/deadlines.py [local|docker|docker-relay]

The promise is two seconds and 400 MB. The tests (`tests/hostile/test_model.py`) hold the host to two seconds of work,
because others may load their machine; here it is the seconds that pass, on a quiet one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from hostile.bounded import FLOODS, BoundedHost  # noqa: E402
from places import PLACES  # noqa: E402

DEADLINE = 4.0


def main() -> None:
    """Run each flood once, and print a table."""
    environment, options, _ = PLACES[sys.argv[1] if len(sys.argv) > 1 else "local"]
    options = {name: value for name, value in options.items() if name != "packages"}
    print(f"{'cell':10} {'late':>8} {'host work':>10} {'memory':>8}")
    with tempfile.TemporaryDirectory() as folder:
        host = BoundedHost(environment, options, folder)
        for name, code in FLOODS.items():
            report = host.run(code, cell_timeout=None, max_timeout=DEADLINE)
            late = report["seconds"] - DEADLINE
            print(f"{name:10} {late:6.2f} s {report['late_work']:8.2f} s {report['grown']:5.0f} MB")
        host.close()


if __name__ == "__main__":
    main()
