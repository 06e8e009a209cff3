"""Lost if these fail: every row once, batches that do not depend on the number of processes."""

import numpy as np
import pytest

from coincide_pl.data.batches import BatchSampler, Size, plan_in_order, plan_shuffled
from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.loader import BatchLoader
from coincide_pl.data.readers import LlavaJson
from coincide_pl.models.processors import load_processor

RANDOM = np.random.default_rng(0)
LENGTHS = RANDOM.integers(1, 2000, 1003)
CODES = RANDOM.integers(-1, 300, 1003)


def test_reading_in_order_takes_every_row_once():
    plan = plan_in_order(LENGTHS, CODES, Size(16))
    assert sorted(np.concatenate(plan)) == list(range(1003))
    assert {len(batch) for batch in plan} == {16, 1003 % 16}
    padding = sum(LENGTHS[b].max() * len(b) for b in plan) / LENGTHS.sum()
    assert padding < 1.15  # 2.0 in file order


def test_shuffled_batches_are_alike_inside_and_new_each_epoch():
    plan = plan_shuffled(LENGTHS, CODES >= 0, Size(16), seed=0, epoch=0)
    assert sorted(np.concatenate(plan)) == list(range(1003))
    assert all(len(set((CODES[batch] >= 0).tolist())) == 1 for batch in plan)
    assert sum(len(batch) < 16 for batch in plan) <= 2
    assert sum(LENGTHS[b].max() * len(b) for b in plan) / LENGTHS.sum() < 1.1
    same = plan_shuffled(LENGTHS, CODES >= 0, Size(16), seed=0, epoch=0)
    assert all((a == b).all() for a, b in zip(plan, same, strict=True))
    other = plan_shuffled(LENGTHS, CODES >= 0, Size(16), seed=0, epoch=1)
    assert any(a.tolist() != b.tolist() for a, b in zip(plan, other, strict=False))
    rows = [5, 900, 33]
    plan = plan_shuffled(LENGTHS, CODES >= 0, Size(2), seed=0, epoch=0, rows=rows)
    assert sorted(np.concatenate(plan)) == sorted(rows)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_batches_are_handed_whole_to_processes(world):
    plan = plan_in_order(LENGTHS, CODES, Size(16))
    parts = [list(BatchSampler(lambda _: plan, rank, world, False)) for rank in range(world)]
    merged = [parts[i % world][i // world] for i in range(len(plan))]
    assert merged == [batch.tolist() for batch in plan]
    even = [BatchSampler(lambda _: plan, rank, world, True) for rank in range(world)]
    assert len({len(sampler) for sampler in even}) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_inside_an_epoch(tiny, llava, tmp_path, workers):
    records = LlavaJson(str(llava)).records(tmp_path / "cache")
    batches = EncodedBatches(records, Encoder(load_processor(tiny)))

    def loader():
        plan = plan_shuffled(
            records.text_lengths, records.image_counts > 0, Size(8), seed=0, epoch=0
        )
        return BatchLoader(batches, BatchSampler(lambda _: plan, 0, 1, True), num_workers=workers)

    whole = [batch.rows.tolist() for batch in loader()]
    begun = loader()
    first = iter(begun)
    seen = [next(first).rows.tolist() for _ in range(3)]
    again = loader()
    again.load_state_dict(begun.state_dict())
    assert seen + [batch.rows.tolist() for batch in again] == whole
    assert again.state_dict() == {"batches": 0}
    assert [batch.rows.tolist() for batch in again] == whole


def test_a_max_tokens_holds():
    for plan in (
        plan_in_order(LENGTHS, CODES, Size(1, 2000)),
        plan_shuffled(LENGTHS, CODES >= 0, Size(1, 2000), seed=0, epoch=0),
    ):
        assert sorted(np.concatenate(plan)) == list(range(len(LENGTHS)))
        padded = [len(rows) * LENGTHS[rows].max() for rows in plan]
        assert all(len(rows) == 1 or size <= 2000 for rows, size in zip(plan, padded, strict=True))
        assert np.mean(padded) > 1000
    long = plan_in_order(np.array([5, 50, 6]), np.full(3, -1), Size(1, 20))
    assert [rows.tolist() for rows in long] == [[0, 2], [1]]
