"""Lost if these fail: every record as it was read, from a file that many processes share."""

import pickle

import numpy as np
import pytest

from coincide_pl.data import columns
from coincide_pl.data.record import Record, Turn
from coincide_pl.data.records import Notes, Records, place
from coincide_pl.errors import DataError

TALK = (Turn("user", "<image>\nwhat?"), Turn("assistant", "größer"))
RECORDS = [
    Record("a", ("x.png",), TALK, "coco", 0),
    Record("b", (), (Turn("system", ""), Turn("user", "hi"), Turn("assistant", "ho")), None, 1),
    Record("c", ("y.png", "x.png"), TALK, "vg", 2),
    Record("d", ("x.png",), TALK, "coco", 3),
]


@pytest.fixture
def records(tmp_path, monkeypatch):
    """Four records in chunks of two."""
    monkeypatch.setattr(columns, "ROWS_PER_CHUNK", 2)
    return Records.write(tmp_path / "r.arrow", RECORDS, image_root=tmp_path)


def test_records_come_back_as_they_were(records):
    assert list(records) == RECORDS
    assert records[-1] == RECORDS[3]
    assert records[1:3] == RECORDS[1:3]
    assert records[np.int64(2)] == RECORDS[2]
    assert [record.number for record in records] == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        records[4]


def test_a_worker_process_opens_the_same_file(records):
    sent = pickle.dumps(records)
    assert len(sent) < 500  # a path, not the records
    assert list(pickle.loads(sent)) == RECORDS


def test_columns_say_what_the_records_say(records):
    assert records.text_lengths.tolist() == [13 + 8, 4, 21, 21]  # bytes: ö and ß take two each
    assert records.image_counts.tolist() == [1, 0, 2, 1]
    assert records.sources == ["coco", "unnamed", "vg", "coco"]
    assert records.answers == [record.turns[-1].text for record in RECORDS]
    codes = records.image_codes
    assert codes[1] == -1
    assert codes[0] == codes[3] != codes[2]
    names, rows = records.images
    assert {name: rows[number].tolist() for name, number in names.items()} == {
        "x.png": [0, 2, 3],
        "y.png": [2],
    }


def test_the_fingerprint_is_of_the_records_alone(records, tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "ROWS_PER_CHUNK", 3)
    elsewhere = Records.write(tmp_path / "s.arrow", RECORDS, image_root=tmp_path / "images")
    assert elsewhere.fingerprint == records.fingerprint
    for field, value in {
        "id": "e",
        "images": ("z.png",),
        "turns": TALK[::-1],
        "source": "vg",
    }.items():
        kept = {name: getattr(RECORDS[3], name) for name in ("id", "images", "turns", "source")}
        changed = [*RECORDS[:3], Record(**{**kept, field: value})]
        other = Records.write(tmp_path / "o.arrow", changed, image_root=tmp_path)
        assert other.fingerprint != records.fingerprint, field


def test_what_is_sifted_out_is_gone_and_the_rest_keep_their_numbers(tmp_path):
    def sift(found):
        return np.array([True, False, True, False]), Notes([("data.json", 0)], {}, ["two left out"])

    kept = Records.write(tmp_path / "r.arrow", RECORDS, image_root=tmp_path, sift=sift)
    assert list(kept) == [RECORDS[0], RECORDS[2]]
    assert kept.numbers.tolist() == [0, 2]
    assert kept.notes.messages == ["two left out"]
    assert kept.name(1) == "data.json: record 2 (id 'c')"


def test_a_place_is_a_file_and_a_number_in_it():
    starts = [("one.json", 0), ("two.json", 5), ("three.json", 7)]
    assert place(starts, 4) == "one.json: record 4"
    assert place(starts, 5) == "two.json: record 0"
    assert place(starts, 9) == "three.json: record 2"


def test_a_file_that_holds_no_records_is_named(tmp_path):
    for content in (b"", b"ARROW1 and more", b"[]"):
        (tmp_path / "x.arrow").write_bytes(content)
        with pytest.raises(DataError, match=r"x\.arrow: not a file of records"):
            Records(tmp_path / "x.arrow")
