"""The memory of a whole ingest, as the system counts it: two dictionaries and 1 GB, whatever their number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BUNDLE = Path(__file__).parents[1] / "ingest" / "bundle" / "smollm2-135m"
ALLOWED = 10**9  # bytes beside two dictionaries
# A process is charged with the memory of the one that started it, until it runs its own program: hence a small one in
# between, whose only child is the ingest. What that touches while it ends is counted too.
MEASURE = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-c", "from atlas.cli.main import main; main()", *sys.argv[1:]])
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(*arguments: str) -> int:
    """Bytes of memory that a command has used at most, from its start until it has ended."""
    command = [sys.executable, "-c", MEASURE, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    code, size = map(int, answer.stdout.splitlines()[-1].split())
    assert code == 0, answer.stderr
    return size * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
def test_the_bundle_is_ingested_within_bounds(tmp_path: Path) -> None:
    # 12 dictionaries of 2,048 features, 576 wide: decoder and encoder of two take 4 · 2,048 · 576 · 4 bytes = 19 MB.
    # Torch alone, imported and unloaded, would take 0.95 GB.
    used = peak("ingest", str(BUNDLE), "-a", str(tmp_path / "atlas"), "--device", "cpu")
    assert used < 4 * 2048 * 576 * 4 + ALLOWED
