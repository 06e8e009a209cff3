"""Lost if these fail: training on the mix that a list of data sets says, and choosing from it."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from coincide_pl.data.images import open_image
from coincide_pl.data.readers import Mix
from coincide_pl.data.readers.sampling import Sampling, strategy, with_sampling
from coincide_pl.errors import DataError
from coincide_pl.selection import Selection

FORMATS = Path(__file__).parent / "formats"


@pytest.fixture
def formats(tmp_path):
    """A small file of each format, in a folder that may be changed."""
    return Path(shutil.copytree(FORMATS, tmp_path / "formats"))


def ids(records, source):
    return [record.id for record in records if record.source == source]


def test_llava_onevision(formats, tmp_path):
    mix = Mix(str(formats / "onevision.yaml"))
    records = mix.records(tmp_path / "cache")
    assert ids(records, "llava") == ["llava-0", "llava-1", "llava-2"]
    assert ids(records, "sharegpt4v") == ["000000000009"]
    assert len(ids(records, "llava_images")) == 2
    again = Mix(str(formats / "onevision.yaml"), seed=0).records(tmp_path / "other")
    assert list(again) == list(records)
    assert again.fingerprint == records.fingerprint


def test_images_of_different_folders(formats, tmp_path):
    (formats / "1.png").write_bytes((formats / "images" / "3.png").read_bytes())
    records = Mix(str(formats / "internvl.json")).records(tmp_path / "cache")
    reds = {
        r.source: open_image(records.image_root, r.images[0]).getpixel((0, 0))[0] for r in records
    }
    assert reds == {"ocr": 60, "captions": 60}
    names = {record.source: record.images for record in records}
    assert names == {"ocr": ("ocr/1.png",), "captions": ("captions/images/1.png",)}


def test_internvl(formats, tmp_path, caplog):
    records = Mix(str(formats / "internvl.json")).records(tmp_path / "cache")
    assert ids(records, "ocr") == [str(i) for i in range(5) for _ in range(2)]
    assert ids(records, "captions") == ["llava-0", "llava-1"]
    assert records.numbers.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6]
    assert records.name(11) == f"{formats}/llava.json: record 1 (id 'llava-1')"
    assert "'max_dynamic_patch' of 1 data sets is not read" in caplog.text
    once = Mix(str(formats / "internvl.json"), copies=False).records(tmp_path / "cache")
    assert len(once) == 7


def test_qwen_vl(formats, tmp_path):
    path = str(formats / "qwen_vl.py")
    records = Mix(path, "ocr%40,cambrian_737k").records(tmp_path / "cache")
    assert Counter(records.sources) == {"ocr": 2, "cambrian_737k": 10}
    assert records[0].images == ("ocr/1.png",)
    assert records[2].images == ("cambrian_737k/images/1.png",)
    with pytest.raises(DataError, match="names no 'orc'; known are cambrian_737k, ocr"):
        Mix(path, "orc%50")


def test_its_python_is_never_run(formats):
    path = formats / "qwen_vl.py"
    mark = formats / "mark"
    path.write_text(f"open({str(mark)!r}, 'w')\n{path.read_text()}")
    assert len(Mix(str(path)).readers) == 2
    assert not mark.exists()


def test_llama_factory(formats, tmp_path):
    path = str(formats / "dataset_info.json")
    with pytest.raises(
        DataError, match=r"'hub': its data are elsewhere \(hf_hub_url\); .* datasets"
    ):
        Mix(path)
    records = Mix(path, "mllm_demo,talks,instructions").records(tmp_path / "cache")
    assert records.sources == ["mllm_demo", "talks", "instructions", "instructions"]
    assert [turn.text for turn in records[0].turns] == [
        *("<image>Who are they?", "They're two players."),
        *("What are they doing?", "They are celebrating."),
    ]
    assert [turn.role for turn in records[1].turns][:2] == ["system", "user"]
    assert [turn.text for turn in records[2].turns] == [
        *("Be brief.", "Are you there?", "Yes."),
        *("<image>Describe the picture.\nIn one word.", "Red."),
    ]
    assert len({record.images for record in records if record.images}) == 1


def test_ms_swift(formats, tmp_path):
    records = Mix(str(formats / "swift.yaml")).records(tmp_path / "cache")
    assert Counter(records.sources) == {"swift_messages": 1, "swift_query": 5, "swift_sharegpt": 1}
    assert [turn.text for turn in records[-1].turns] == [
        *("You are helpful.", "q1", "a1"),
        "q2",
        "a2",
    ]


@pytest.mark.parametrize("name", ["onevision.yaml", "internvl.json", "qwen_vl.py", "swift.yaml"])
def test_what_is_chosen_is_a_list_of_the_same_kind(formats, tmp_path, name):
    shutil.copy(formats / "images" / "1.png", formats)
    mix = Mix(str(formats / name))
    records = mix.records(tmp_path / "cache")
    rows = np.arange(len(records))[::-2]
    mix.write_subset(records.numbers[rows], tmp_path / "chosen")
    (listing,) = (p for p in (tmp_path / "chosen").iterdir() if p.stem == "mix")
    back = Mix(str(listing), image_folder=str(formats)).records(tmp_path / "cache")
    expected = [records[int(row)] for row in rows]
    for source in set(records.sources):  # the order of picking, inside each data set
        turns, wanted = ([r.turns for r in rs if r.source == source] for rs in (back, expected))
        assert turns == wanted
    assert [open_image(back.image_root, i) for r in back for i in r.images]
    with pytest.raises(DataError, match="is there already"):
        mix.write_subset([0], tmp_path / "chosen")


def test_llama_factory_reads_what_is_chosen_from_its_own_list(formats, tmp_path):
    mix = Mix(str(formats / "dataset_info.json"), "talks,instructions")
    mix.write_subset([2, 0], tmp_path / "chosen")
    info = json.loads((tmp_path / "chosen" / "dataset_info.json").read_text())
    assert [*info] == ["talks", "instructions"]
    assert info["talks"]["columns"]["messages"] == "conversations"
    given = json.loads((formats / "alpaca.json").read_text())
    assert json.loads((tmp_path / "chosen" / info["instructions"]["file_name"]).read_text()) == [
        given[1]
    ]


def test_internvl_reads_json_lines(formats, tmp_path):
    Mix(str(formats / "internvl.json")).write_subset([3, 3, 0], tmp_path / "chosen")
    meta = json.loads((tmp_path / "chosen" / "mix.json").read_text())
    assert meta["ocr"]["repeat_time"] == 1
    lines = Path(meta["ocr"]["annotation"]).read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [3, 3, 0]
    assert meta["ocr"]["annotation"].endswith(".jsonl")


def test_sources_go_through_the_command(formats, tmp_path, command):
    words = (
        *("select", "--data=InstructionData", "--data.train=Mix"),
        *(f"--data.train.path={formats}/onevision.yaml", f"--data.cache_dir={tmp_path}/cache"),
        *("--data.selector=Random", "--data.fraction=0.5", "--trainer.accelerator=cpu"),
        f"--trainer.default_root_dir={tmp_path}/run",
    )
    status, _, said = command(*words)
    assert status == 0, said
    chosen = Selection.load(tmp_path / "run" / "selection.safetensors")
    status, _, said = command("subset", tmp_path / "run", f"--output={tmp_path}/chosen")
    assert status == 0, said
    files = yaml.safe_load((tmp_path / "chosen" / "mix.yaml").read_text())["datasets"]
    counts = [
        len(list(Mix(str(tmp_path / "chosen" / "mix.yaml")).readers[i])) for i in range(len(files))
    ]
    assert sum(counts) == len(chosen.indices)
    status, _, said = command("report", tmp_path / "run", f"--output={tmp_path}/report.html")
    assert status == 0, said
    assert "sharegpt4v" in (tmp_path / "report.html").read_text()


def test_folders_that_are_linked_into_an_image_folder_are_read(formats, tmp_path):
    (formats / "images").rename(tmp_path / "elsewhere")
    (formats / "images").symlink_to(tmp_path / "elsewhere")
    records = Mix(str(formats / "qwen_vl.py")).records(tmp_path / "cache")
    assert all(open_image(records.image_root, i) for r in records for i in r.images)


def test_a_record_is_named_by_its_own_file(formats, tmp_path):
    path = formats / "internvl.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], '{"id": "bad", "conversations": []}', *lines[4:]]))
    with pytest.raises(
        DataError, match=r"internvl\.jsonl: record 3 \(id 'bad'\): no 'conversations'"
    ):
        Mix(str(formats / "internvl.json")).records(tmp_path / "cache")
    skipped = Mix(str(formats / "internvl.json"), on_error="skip").records(tmp_path / "cache")
    assert Counter(skipped.sources) == {"ocr": 8, "captions": 2}
    (formats / "onevision.yaml").write_text(
        "datasets:\n- {json_path: internvl.jsonl, sampling_strategy: 'first:2'}\n"
    )
    assert len(Mix(str(formats / "onevision.yaml")).records(tmp_path / "cache")) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("datasets: [{json_path: no.json}]", r"'no': .*no\.json: no such data file"),
        ("datasets: [{path: llava.json}]", "names no data; known are json_path"),
        ("datasets: [{json_path: llava.json, sampling_strategy: last:3}]", "'last:3' is none of"),
        ("datasets: [{json_path: llava.json, sampling_strategy: 3}]", "3 is not understood"),
        ("a: {annotation: llava.json, repeat_time: -1}", "-1 must be a number from 0 on"),
        ("a: {annotation: llava.json, root: nowhere}", "nowhere: no such image folder"),
        ("a: {file_name: alpaca.json, ranking: true}", "data of preferences"),
        ("a: {file_name: alpaca.json, columns: {promt: x}}", "column 'promt' is unknown"),
        ("{a: {file_name: alpaca.json}, b: {annotation: x.json}}", "InternVL and LLaMA-Factory"),
        ("just words", "not a list of data sets|names no data|no such"),
        ("[1, 2]", "entry 0 is no data set"),
        ("a: [", "not YAML"),
        ("{}", "names no data sets"),
    ],
)
def test_a_bad_list_is_named(formats, text, said):
    (formats / "mix.yaml").write_text(text)
    with pytest.raises(DataError, match=said) as error:
        Mix(str(formats / "mix.yaml"))
    assert "mix.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_of_items():
    def counts(sampling, size=7):
        return sampling.counts(size, (0, 0)).tolist()

    assert counts(strategy("first:30%")) == [1, 1, 1, 0, 0, 0, 0]
    assert counts(strategy("end:2")) == [0, 0, 0, 0, 0, 1, 1]
    assert counts(strategy("first:99")) == counts(strategy("end:200%")) == [1] * 7
    assert counts(strategy("end:0")) == [0] * 7
    assert sum(counts(strategy("random:50%"))) == 4
    assert counts(Sampling(share=0.25)) == [1, 0, 0, 0, 0, 0, 0]
    assert counts(Sampling(share=2.5)) == [3, 3, 3, 2, 2, 2, 2]
    assert sorted(counts(Sampling("random", rows=9))) == [1, 1, 1, 1, 1, 2, 2]
    assert counts(Sampling(), 0) == []
    assert with_sampling("a/b.json#1_000") == ("a/b.json", Sampling("random", rows=1000))
    assert with_sampling("name%50") == ("name", Sampling("random", share=0.5, repeats=False))


def test_the_draw_depends_on_the_seed_and_the_place_alone(formats, tmp_path):
    drawn = [
        Mix(str(formats / "qwen_vl.py"), "cambrian_737k%50,ocr", seed=seed).records(tmp_path / "c")
        for seed in (0, 1)
    ]
    alone = Mix(str(formats / "qwen_vl.py"), "cambrian_737k%50").records(tmp_path / "c")
    first, second = (ids(records, "cambrian_737k") for records in drawn)
    assert first == ids(alone, "cambrian_737k")
    assert first != second


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("B = {'annotation_path': join('x')}\ndata_dict = {'a': A, 'b': B}", "B"),
        ("B = {'annotation_path': join('x')}", "B"),
        ("data_dict = dict(a=A)", "data_dict"),
        ("data_dict = {'a': A}\ndata_dict['b'] = A", "data_dict"),
        ("data_dict = {'a': A}\ndata_dict.update(b=A)", "data_dict"),
    ],
)
def test_a_data_set_that_a_python_list_computes_is_missed(tmp_path, text, named):
    """Else the mix is without it, and nobody hears of it."""
    path = tmp_path / "mix.py"
    path.write_text(f"A = {{'annotation_path': 'a.json', 'data_path': '.'}}\n{text}\n")
    with pytest.raises(DataError, match=f"'{named}' is computed, and so not read; write it out"):
        Mix(str(path))


def test_python_lists_as_people_write_them(formats):
    path = formats / "other.py"
    path.write_text(
        "A = {'annotation_path': 'qwen_vl.json', 'data_path': 'images'}\nMORE = {'a': A}\n"
        "data_dict: dict = {**MORE, 'b': A}\nif __name__ == '__main__':\n    print(data_dict)\n"
    )
    assert [entry.name for entry in Mix(str(path)).listing.entries] == ["a", "b"]


def test_an_image_folder_that_is_no_path(formats):
    path = formats / "folders.json"
    path.write_text(json.dumps({"a": {"annotation": "internvl.jsonl", "root": ["images"]}}))
    with pytest.raises(DataError, match=r"'a': its image folder \['images'\] must be a path"):
        Mix(str(path))
