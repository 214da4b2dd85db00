"""All ratios against peers, each measured in one run: `make bench`, or `python tests/bench.py [AREA…]`.

Writes docs/benchmarks.json (ratios, machine, versions) and from it docs/benchmarks.md, and says which ratios fell by
more than a tenth behind those that were there: exit status 1. The peers of steering are looked at where they are
installed: pip install steering-vectors repeng nnsight.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench_record import FILE, Ratio

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "benchmarks.json"
TEXT = ROOT / "docs" / "benchmarks.md"
AREAS = {
    "matching": ["bench_matching.py"],
    "graph": ["bench_lineage.py"],
    "server": ["bench_neo4j.py"],
    "steering": ["bench_steering.py"],
}
ALLOWED = 1.10  # how much longer than before
VERSIONS = (
    *("faiss-gpu", "faiss-cpu", "torch", "transformers", "numpy", "ladybug", "neo4j", "networkx"),
    "steering-vectors",
)


def measure(areas: Sequence[str]) -> list[Ratio]:
    """Run the areas' benchmarks, which print as they go, and return their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratios.jsonl"
        for area in areas:
            for script in AREAS[area]:
                subprocess.run(
                    [sys.executable, str(ROOT / "tests" / script)], env=os.environ | {FILE: str(path)}, check=True
                )
        return [Ratio(**json.loads(line)) for line in path.read_text().splitlines()]


def machine() -> dict[str, Any]:
    """What ratios depend on besides the code."""
    installed = {each.metadata["name"].lower(): each.version for each in importlib.metadata.distributions()}
    return {
        "measured": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: installed[name] for name in VERSIONS if name in installed},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def fallen(ratios: Sequence[Ratio], before: Sequence[Ratio]) -> list[str]:
    """A line for each ratio that is more than ALLOWED times what it was."""
    old = {(each.area, each.what, each.peer): each for each in before}
    return [
        f"{each.what} fell from {old[key].ratio:.2f} to {each.ratio:.2f} × {each.peer}"
        for each in ratios
        if (key := (each.area, each.what, each.peer)) in old and each.worse(old[key]) > ALLOWED
    ]


def page(kept: Mapping[str, Any]) -> str:
    """docs/benchmarks.md."""
    about = kept["machine"]
    lines = [
        "# Benchmarks",
        "",
        "`make bench` measures these ratios, each against its peer in the same run, writes this page, and says which",
        "fell by more than a tenth. Below 1 is faster than the peer.",
        "",
        f"{about['processor']}, {about['cores']} cores, {about['system']}, {about['measured']}. "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        + ".",
        "",
        "| area | what | × | of | which takes |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each['area']} | {each['what']} | {each['ratio']:.2f} | {each['peer']} | {_time(each['seconds'])} |"
        for each in kept["ratios"]
    ]
    return "\n".join(lines) + "\n"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.2f} ms"


def main(areas: Sequence[str]) -> int:
    """Measure, write, compare; areas that are not measured keep what they had."""
    unknown = set(areas) - set(AREAS)
    if unknown:
        print(f"no area is called {', '.join(sorted(unknown))}; there are {', '.join(AREAS)}", file=sys.stderr)
        return 2
    wanted = list(areas) or list(AREAS)
    before = [Ratio(**each) for each in json.loads(KEPT.read_text())["ratios"]] if KEPT.exists() else []
    ratios = measure(wanted)
    every = ratios + [each for each in before if each.area not in wanted]
    every.sort(key=lambda each: list(AREAS).index(each.area))
    kept = {"machine": machine(), "ratios": [vars(each) for each in every]}
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    TEXT.write_text(page(kept))
    behind = fallen(ratios, before)
    for line in behind:
        print(line)
    print(f"{len(ratios)} ratios in {TEXT.relative_to(ROOT)}, {len(behind)} fell by more than a tenth")
    return bool(behind)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
