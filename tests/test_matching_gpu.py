"""Matching on a GPU: the plan of blocks and what is selected, where torch's CPU takes the GPU's place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from saes import planted
from test_matching import unit

from atlas import open_atlas
from atlas.errors import CorruptAtlas, IngestError
from atlas.folder.paths import DECODER, dictionary_folder, matches_file
from ingest import ingest
from ingest.matching import candidates, gpu
from ingest.matching.blocks import Nearest, UnitRows
from ingest.matching.gpu import Device
from ingest.matching.pairs import plan_pairs
from ingest.matching.stage import Stage, staged_name


def same(found: tuple[Nearest, Nearest], expected: tuple[Nearest, Nearest]) -> None:
    """Cosines within rounding; the same rows wherever a cosine stands apart from the next ones."""
    for one, other in zip(found, expected, strict=True):
        there = other.ids >= 0
        assert (one.ids >= 0).tolist() == there.tolist()
        assert np.abs(one.values[there] - other.values[there]).max() < 1e-6
        apart = np.ones(there.shape, bool)
        apart[:, 1:] &= other.values[:, :-1] - other.values[:, 1:] > 1e-6
        apart[:, :-1] &= apart[:, 1:]
        apart[:, -1] = False  # what was left out may be its equal
        assert (one.ids == other.ids)[apart & there].all()


@pytest.mark.parametrize(("n", "m"), [(700, 523), (33, 900), (1, 40), (5, 3)])
@pytest.mark.parametrize("block", [None, 1, 17, 300])
def test_the_same_rows_as_on_a_cpu(n: int, m: int, block: int | None) -> None:
    if block == 1 and n * m > 2000:
        n, m = 20, 31
    later, earlier = UnitRows.of(unit(n, 24, 0)), UnitRows.of(unit(m, 24, 1))
    told: list[int] = []
    found = gpu.nearest(Device("cpu"), later, earlier, 8, block, told.append)
    same(found, candidates.nearest(later, earlier, 8, block, None))
    assert sum(told) == n * m


def test_fewer_rows_than_wanted_are_no_rows() -> None:
    # Three earlier rows for eight places: five places of each later row stay empty.
    found, _ = gpu.nearest(Device("cpu"), UnitRows.of(unit(4, 6, 0)), UnitRows.of(unit(3, 6, 1)), 8)
    assert (found.ids[:, 3:] == -1).all() and (np.sort(found.ids[:, :3], axis=1) == [0, 1, 2]).all()


def test_rows_stay_while_there_is_room() -> None:
    # 100 rows of 8 numbers of 4 bytes: 3,200 bytes. Room for two dictionaries, not three.
    device, rows = Device("cpu", room=2 * 3200), [UnitRows.of(unit(100, 8, seed)) for seed in range(3)]
    first, second = (device.block(one, 0, 100) for one in rows[:2])
    assert device.block(rows[0], 0, 100) is first and device.held == 6400
    device.block(rows[2], 0, 100)  # the second was used longest ago
    assert device.block(rows[0], 0, 100) is first and device.block(rows[1], 0, 100) is not second
    assert device.held == 6400
    device.clear()
    assert device.held == 0


class Small(Device):
    """A device that runs out of memory at blocks of more than `most` rows."""

    most = 300

    def block(self, rows: UnitRows, low: int, high: int) -> torch.Tensor:
        if high - low > self.most:
            raise torch.OutOfMemoryError
        return super().block(rows, low, high)


def test_smaller_blocks_where_memory_runs_out() -> None:
    later, earlier = UnitRows.of(unit(1500, 16, 0)), UnitRows.of(unit(700, 16, 1))
    told: list[int] = []
    found = gpu.nearest(Small("cpu"), later, earlier, 8, None, told.append)
    same(found, candidates.nearest(later, earlier, 8, None, None))
    assert sum(told) == 1500 * 700
    full = Small("cpu")
    full.most = 10
    with pytest.raises(IngestError, match="no room for 256 rows"):
        gpu.nearest(full, later, earlier, 8)


def test_products_are_those_of_float32_whatever_is_set() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        gpu.nearest(Device("cpu"), UnitRows.of(unit(4, 6, 0)), UnitRows.of(unit(3, 6, 1)), 2)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_two_devices_stage_what_one_cpu_does(tmp_path: Path) -> None:
    ingest([planted(tmp_path / "saes", range(3))], tmp_path / "atlas", device="cpu")
    with open_atlas(tmp_path / "atlas") as atlas:
        records = dict(atlas.dictionaries)
        pairs = {staged_name(pair, records): pair for pair in plan_pairs(records.values(), 5)}
    staged = {name: pq.read_table(matches_file(tmp_path / "atlas", name)) for name in pairs}
    for name in pairs:
        matches_file(tmp_path / "atlas", name).unlink()
    told: list[int] = []
    Stage(tmp_path / "atlas", records, told.append).on_gpus(pairs, [Device("cpu"), Device("cpu")])
    assert told.count(0) == len(pairs) == 8  # res 1 and 2: res before; res 0, 1 and 2: mlp and att
    for name, table in staged.items():
        again = pq.read_table(matches_file(tmp_path / "atlas", name))
        assert again.drop_columns("similarity").equals(table.drop_columns("similarity"))
        assert np.abs(np.subtract(again["similarity"], table["similarity"])).max() < 1e-6
        assert again.schema.metadata == table.schema.metadata
    decoder = dictionary_folder(tmp_path / "atlas", next(iter(pairs.values())).later) / DECODER
    decoder.write_bytes(decoder.read_bytes()[:-4])
    with pytest.raises(CorruptAtlas):
        Stage(tmp_path / "atlas", records, told.append).on_gpus(pairs, [Device("cpu"), Device("cpu")])
