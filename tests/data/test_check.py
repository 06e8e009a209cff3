"""Lost if these fail: a list of every record and image that can't be used."""

import json


def test_every_bad_image_is_named(llava, tmp_path, command):
    words = ("check", "--train=LlavaJson", f"--train.path={llava}", f"--cache_dir={tmp_path}/cache")
    status, out, _ = command(*words)
    assert status == 0
    assert out.splitlines()[-1] == "60 records, 10 images"
    (llava.parent / "coco/0.png").write_bytes(b"")
    (llava.parent / "vg/1.png").unlink()
    status, out, told = command(*words)
    assert status == 1
    items = json.loads(llava.read_text())
    shown = [
        [i for i, item in enumerate(items) if item.get("image") == f"{name}.png"]
        for name in ("coco/0", "vg/1")
    ]
    lines = out.splitlines()
    for line, name, rows, reason in zip(
        lines, ("coco/0", "vg/1"), shown, ("not an image", "no such image"), strict=False
    ):
        more = f", and {len(rows) - 1} more"
        start = f"{llava}: record {rows[0]} (id 'r{rows[0]}'){more}: "
        assert line == f"{start}{llava.parent}/{name}.png: {reason}"
    count = len(shown[0]) + len(shown[1])
    assert told == f"error: 2 images of {count} records can't be used\n"


def test_every_bad_record_is_named(llava, tmp_path, command):
    items = json.loads(llava.read_text())
    items[2]["conversations"] = items[2]["conversations"][:1]
    items[5]["conversations"] = None
    items[7]["conversations"].insert(0, {"from": "gpt", "value": "first"})
    llava.write_text(json.dumps(items))
    (llava.parent / "vg/1.png").unlink()
    status, out, told = command(
        *("check", "--train=LlavaJson", f"--train.path={llava}", f"--cache_dir={tmp_path}/cache")
    )
    assert status == 1
    lines = out.splitlines()
    assert lines[0] == f"{llava}: record 2 (id 'r2'): no answer"
    assert lines[1] == f"{llava}: record 5 (id 'r5'): no 'conversations'"
    assert f"{llava.parent}/vg/1.png: no such image" in lines[2]
    assert lines[3] == "1 conversations began with an answer, which was dropped"
    assert lines[4] == "60 records, 10 images"
    assert told.startswith("error: 2 records can't be used; 1 images of ")
    assert list((tmp_path / "cache").iterdir()) == []
