"""Lost if these fail: a list of every image that can't be used."""

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
