"""Lost if these fail: hours before a batch that will never come, in a container's shared memory."""

import dataclasses

import pytest
import torch

from coincide_pl.data import handover
from coincide_pl.data.batches import BatchSampler
from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.loader import BatchLoader
from coincide_pl.data.readers import LlavaJson
from coincide_pl.models.processors import load_processor


@pytest.fixture
def loader(tiny, llava, tmp_path):
    records = LlavaJson(str(llava)).records(tmp_path / "cache")
    batches = EncodedBatches(records, Encoder(load_processor(tiny)))
    sampler = BatchSampler(lambda _: [torch.arange(i, i + 8) for i in range(0, 56, 8)], 0, 1, True)

    def make(workers):
        return BatchLoader(batches, sampler, num_workers=workers)

    return make


def test_where_shared_memory_is_small_batches_come_through_a_pipe(loader, monkeypatch, caplog):
    whole = list(loader(0))
    monkeypatch.setattr(handover, "free_bytes", lambda: 65536)
    for batch, expected in zip(loader(2), whole, strict=True):
        for field in dataclasses.fields(batch):
            mine, its = getattr(batch, field.name), getattr(expected, field.name)
            if isinstance(its, torch.Tensor):
                torch.testing.assert_close(mine, its)
            elif field.name != "image_inputs":
                assert mine == its
        torch.testing.assert_close(batch.image_inputs, expected.image_inputs)
    assert caplog.text.count("workers hand batches over through pipes") == 1
    assert "--shm-size" in caplog.text


def test_a_batch_that_is_lost_on_the_way_ends_the_run(loader, monkeypatch):
    monkeypatch.setattr(EncodedBatches, "__getitem__", lambda self, rows: lambda: rows)
    monkeypatch.setattr(handover, "shared_bytes", lambda batch: 0)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(loader(1))


def test_the_room_that_a_batch_takes(loader):
    batch = next(iter(loader(0)))
    pixels = batch.image_inputs["pixel_values"].nbytes
    assert pixels < handover.shared_bytes(batch) < pixels + 32 * handover.PAGE
    assert handover.free_bytes() > 0
