"""How long a look takes: commands on a small atlas beside a bare interpreter that imports click, run by turns.

    python tests/bench_start.py [ROUNDS]

Prints, for each command, the median of its time and of what it takes longer than the bare interpreter of its round.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
CODE = "from atlas.cli.main import main; main()"
FEATURE = "smollm2-135m-instruct/9-res-2k/2018"
BARE = "bare"


def commands(atlas: Path) -> dict[str, list[str]]:
    """What is run, by name."""
    command = [sys.executable, "-c", CODE]
    here = ["-a", str(atlas)]
    return {
        BARE: [sys.executable, "-c", "import click"],
        "--help": [*command, "--help"],
        "info": [*command, "info", *here],
        "query": [*command, "query", "MATCH (f:Feature) RETURN f.id AS id ORDER BY id LIMIT 3", *here],
        "lineage": [*command, "lineage", FEATURE, *here],
        "search": [*command, "search", "film", *here],
        "ask": [*command, "ask", "born-here", *here],
        "show": [*command, "show", FEATURE, *here],
    }


def seconds(command: list[str]) -> float:
    """How long a command takes; it must succeed."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=ROOT)
    return time.perf_counter() - start


def main(rounds: int = 9) -> None:
    with tempfile.TemporaryDirectory() as folder:
        atlas = Path(folder) / "atlas"
        bundle = ROOT / "ingest" / "bundle" / "smollm2-135m"
        for words in (["ingest", str(bundle)], ["label", "--import", str(bundle / "labels.parquet")]):
            command = [sys.executable, "-c", CODE, *words, "-a", str(atlas)]
            subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
        run = commands(atlas)
        for command in run.values():
            seconds(command)
        times = [{name: seconds(command) for name, command in run.items()} for _ in range(rounds)]
    print(f"{'':<10}{'seconds':>10}{'over bare':>12}")
    for name in run:
        over = median(each[name] - each[BARE] for each in times)
        print(f"{name:<10}{median(each[name] for each in times):>10.3f}{over:>12.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
