"""Lost if these fail: how much selections share, and where they differ."""

import csv

import numpy as np
import yaml

from coincide_pl.data.readers import LlavaJson
from coincide_pl.selection import Selection

WORDS = {"class_path": "x.X", "init_args": {}}


def test_overlap(llava, tmp_path, command):
    records = LlavaJson(str(llava)).records(tmp_path / "cache")
    made_from = {"data": records.fingerprint}
    labels = np.arange(60, dtype=np.int32) // 30
    for name, indices, own in (
        ("a", np.arange(20), labels),
        ("b", np.arange(39, 9, -1), None),
        ("c/d", np.arange(40, 60), None),
    ):
        file = tmp_path / "runs" / name / "selection.safetensors"
        Selection(indices, 60, WORDS, made_from, labels=own).save(file)
    reader = {"class_path": "LlavaJson", "init_args": {"path": str(llava)}}
    config = {"data": {"init_args": {"train": reader, "cache_dir": str(tmp_path / "cache")}}}
    (tmp_path / "runs/a/select.yaml").write_text(yaml.safe_dump(config))
    files = [tmp_path / "runs/a", tmp_path / "runs/b/selection.safetensors", tmp_path / "runs/c/d"]
    status, out, said = command("overlap", *files, f"--output={tmp_path}/out")
    assert status == 0, said
    assert "25.0" in out
    rows = list(csv.reader((tmp_path / "out/overlap.csv").read_text().splitlines()))
    assert rows[0] == ["selection", "a", "b", "c/d"]
    expected = [[1, 10 / 40, 0], [10 / 40, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(np.array([row[1:] for row in rows[1:]], float), expected, atol=1e-6)
    lines = csv.DictReader((tmp_path / "out/differences.csv").read_text().splitlines())
    lines = [tuple(line.values()) for line in lines]
    assert ("a", "b", "cluster", "0", "20", "10") in lines
    assert not any(line[0] == "b" and line[2] == "cluster" for line in lines)
    own = [records[i].source or "unnamed" for i in range(20)]
    alone = own[:10]
    for source in set(own):
        line = ("a", "b", "source", source, str(own.count(source)), str(alone.count(source)))
        assert line in lines
    assert (tmp_path / "out/overlap.png").read_bytes()[:4] == b"\x89PNG"

    file = tmp_path / "runs/e/selection.safetensors"
    Selection(np.arange(3), 9, WORDS, {"data": "other"}).save(file)
    status, _, said = command("overlap", tmp_path / "runs/a", file)
    assert status == 1
    assert said.strip() == "error: e and a are selections of different data"
    status, _, said = command("overlap", tmp_path / "runs/a")
    assert said.strip() == "error: name at least two selections"
