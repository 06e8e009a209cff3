"""Lost if these fail: data in a format that the package does not read, by a class of one's own."""

import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from coincide_pl.data.readers import Reader, Record, Turn, Unusable
from coincide_pl.errors import DataError

README = Path(__file__).parents[2] / "coincide_pl/README.md"


@pytest.fixture
def captions(tmp_path, monkeypatch):
    """The README's reader in the current folder, and a file for it."""
    section = README.read_text().split("## A reader of your own\n")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    (tmp_path / "my_readers.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as a script has it
    monkeypatch.delitem(sys.modules, "my_readers", raising=False)
    for name in ("a", "b", "c"):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    (tmp_path / "captions.tsv").write_text("a.png\ta cat\nb.png\ta dog\nc.png\ta cow\n")
    yield tmp_path
    sys.modules.pop("my_readers", None)


def test_the_readers_example_goes_through_the_command(captions, command):
    words = (
        *("select", "--data=InstructionData", "--data.selector=Random"),
        *("--data.train=my_readers.Captions", "--data.train.path=captions.tsv"),
        *("--data.train.question=So?", "--data.fraction=0.7", "--data.cache_dir=cache"),
        *("--trainer.accelerator=cpu", "--trainer.default_root_dir=run"),
    )
    status, _, said = command(*words)
    assert status == 0, said
    words = ("subset", "run", "--output=chosen.json", "--run_config=run/select.yaml")
    status, _, said = command(*words)
    assert status == 0, said
    chosen = json.loads(Path("chosen.json").read_text())
    assert len(chosen) == 2
    for item in chosen:
        caption = ("a cat", "a dog", "a cow")[int(item["id"])]
        assert item["image"] == f"{'abc'[int(item['id'])]}.png"
        assert item["conversations"] == [
            {"from": "human", "value": "<image>\nSo?"},
            {"from": "gpt", "value": caption},
        ]


def test_what_its_reader_refuses_is_named(captions, command):
    with (captions / "captions.tsv").open("a") as file:
        file.write("d.png a horse\n")
    words = ("check", "--train=my_readers.Captions", "--train.path=captions.tsv")
    status, out, said = command(*words, "--cache_dir=cache")
    assert status == 1
    line = f"{captions}/captions.tsv: record 3: there is no tab between image and caption"
    assert out.splitlines()[0] == line
    assert said == "error: 1 records can't be used\n"


def test_a_method_that_is_missing_is_named(captions, command):
    code = (captions / "my_readers.py").read_text().replace("def items", "def itms")
    (captions / "my_readers.py").write_text(code)
    words = ("check", "--train=my_readers.Captions", "--train.path=captions.tsv")
    status, _, said = command(*words, "--cache_dir=cache")
    assert status == 2
    assert said == "error: train: my_readers.Captions lacks the method items\n"


class Lines(Reader):
    """Answers to one question, a line each; it leaves out what the tests below say."""

    def __init__(self, path, question="so?"):
        self.path, self.question = Path(path), question
        self.image_root = self.path.parent

    def files(self):
        return [self.path]

    def items(self):
        return iter(self.path.read_text().splitlines())

    def record(self, number, item):
        if item == "bad":
            raise Unusable("malformed", "it is bad")
        return Record(item, (), (Turn("user", self.question), Turn("assistant", item)))


def test_records_are_read_again_when_an_argument_changes(tmp_path):
    (tmp_path / "x.txt").write_text("a\nb\n")
    first = Lines(tmp_path / "x.txt").records(tmp_path / "cache")
    other = Lines(tmp_path / "x.txt", "why?").records(tmp_path / "cache")
    assert [record.turns[0].text for record in first] == ["so?", "so?"]
    assert [record.turns[0].text for record in other] == ["why?", "why?"]


def test_records_are_read_again_when_the_class_changes(captions):
    def read():
        sys.modules.pop("my_readers", None)
        sys.path.insert(0, str(captions))
        try:
            import my_readers

            return my_readers.Captions("captions.tsv").records("cache")
        finally:
            sys.path.remove(str(captions))

    assert read()[0].source == "captions"
    file = captions / "my_readers.py"
    file.write_text(file.read_text().replace('source="captions"', 'source="pictures"'))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        assert read()[0].source == "pictures"
    finally:
        sys.dont_write_bytecode = before


def test_numbers_are_right_where_records_are_left_out(tmp_path):
    (tmp_path / "x.txt").write_text("a\nbad\nb\nc\n")
    reader = Lines(tmp_path / "x.txt")
    reader.on_error = "skip"
    records = reader.records(tmp_path / "cache")
    assert [record.id for record in records] == ["a", "b", "c"]
    assert records.numbers.tolist() == [0, 2, 3]
    reader.write_subset([3, 0], tmp_path / "subset.json")
    assert [item["id"] for item in json.loads((tmp_path / "subset.json").read_text())] == ["c", "a"]


def test_what_a_reader_must_keep_is_named(tmp_path):
    class Homeless(Lines):
        def __init__(self, path):
            self.path = Path(path)

    class Forgetful(Lines):
        def __init__(self, path, hidden=1):
            super().__init__(path)

    (tmp_path / "x.txt").write_text("a\n")
    with pytest.raises(DataError, match=r"Homeless: it must set self\.image_root"):
        Homeless(tmp_path / "x.txt").records(tmp_path / "cache")
    with pytest.raises(DataError, match=r"argument 'hidden' must be kept in self\.hidden"):
        Forgetful(tmp_path / "x.txt").records(tmp_path / "cache")
