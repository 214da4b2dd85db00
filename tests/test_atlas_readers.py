"""Fifty readers of a store, threads and processes, while ingests change it: no error, and only whole states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from neo4j_for_tests import Server, emptied
from saes import planted

from atlas import open_atlas
from atlas.address import ServerAddress
from atlas.atlas import Atlas
from atlas.graph.binding import bind
from ingest import ingest

THREADS, PROCESSES = 30, 4  # five threads each
COUNTS = (
    "MATCH (d:Dictionary) RETURN count(*) AS n",
    "MATCH (f:Feature) RETURN count(*) AS n",
    "MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT]->(a:Feature) RETURN count(*) AS n",
)
OTHER = f"""
import json, sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_atlas_readers import Readers
readers = Readers(sys.argv[1], 5)
print("reading", flush=True)
sys.stdin.readline()
readers.end()
print(json.dumps([readers.seen, readers.errors, readers.times]))
"""


def state(atlas: Atlas) -> list[int]:
    """How much of everything there is; each count is a statement of its own."""
    return [len(atlas.dictionaries), *(int(atlas.read(each)[0]["n"]) for each in COUNTS)]


def noted(address: Path | str, states: list[list[int]]) -> None:
    """Add the state that is there now."""
    with open_atlas(address) as opened:
        states.append(state(opened))


class Readers:
    """Threads that open the atlas, look at it, and close it, until they are told to end."""

    def __init__(self, address: str, threads: int) -> None:
        self.seen: list[list[int]] = []
        self.errors: list[str] = []
        self.times: list[float] = []
        self._address, self._stop = address, threading.Event()
        self._threads = [threading.Thread(target=self._look, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _look(self) -> None:
        while not self._stop.is_set():
            started = time.perf_counter()
            try:
                with open_atlas(self._address) as atlas:
                    self.seen.append(state(atlas))
            except Exception as error:  # whatever it is, it is what a reader was told
                self.errors.append(repr(error))
            self.times.append(time.perf_counter() - started)

    def end(self) -> None:
        """Wait for all."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def looked_at(address: str, act: Any, threads: int = THREADS, processes: int = PROCESSES) -> Any:
    """What readers in threads, and in processes of five threads, saw while `act` ran: states, errors, times."""
    command = [sys.executable, "-c", OTHER, address]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    others = [subprocess.Popen(command, env=os.environ, **pipes) for _ in range(processes)]
    for other in others:
        assert other.stdout is not None and other.stdout.readline() == "reading\n"
    readers = Readers(address, threads)
    try:
        act()
        time.sleep(1)  # the last state is seen too
    finally:
        readers.end()
        with ThreadPoolExecutor(processes) as pool:
            found = list(pool.map(lambda other: json.loads(other.communicate("\n", timeout=120)[0]), others))
    return tuple(sum((each[n] for each in found), own) for n, own in enumerate(vars(readers).values()) if n < 3)


@pytest.mark.slow
def test_fifty_readers_of_a_folder_see_whole_states_while_layers_come(tmp_path: Path) -> None:
    sources, atlas = planted(tmp_path / "saes", range(4)), tmp_path / "a"
    states: list[list[int]] = []
    note = partial(noted, atlas, states)
    ingest([sources], atlas, layers=[0, 1])
    note()

    def more() -> None:
        for layer in (2, 3):
            ingest([sources], atlas, layers=range(layer + 1))
            note()

    seen, errors, times = looked_at(str(atlas), more)
    assert not errors, errors[:3]
    # Some saw the first, some the last, and nobody anything but those three.
    assert states[0] in seen and states[-1] in seen and all(each in states for each in seen)
    assert len(states) == len({tuple(each) for each in states}) == 3
    assert len(seen) >= THREADS + 5 * PROCESSES and np.median(times) < 30


@pytest.mark.parametrize("by_folder", [False, True])
def test_readers_of_a_server_see_whole_states_or_are_told_that_it_is_written_to(
    tmp_path: Path, neo4j_lts: Server, by_folder: bool
) -> None:
    """A server has one state at a time. While the next one is written nobody is given a part of it."""
    address = emptied(neo4j_lts)
    sources, folder = planted(tmp_path / "saes", range(3)), tmp_path / "a"
    bind(folder, ServerAddress.parse(address))
    read = str(folder) if by_folder else address
    states: list[list[int]] = []
    note = partial(noted, read, states)
    ingest([sources], folder, layers=[0, 1])
    note()

    def more() -> None:
        ingest([sources], folder)
        note()

    seen, errors, _ = looked_at(read, more, threads=8, processes=1)
    assert states[0] in seen and states[-1] in seen and all(each in states for each in seen)
    others = [each for each in errors if "written to" not in each]
    assert not others, others[:3]
