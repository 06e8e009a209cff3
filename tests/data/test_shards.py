"""Lost if these fail: data in shards, here and at a URL, read row by row and never unpacked."""

import io
import json
import shutil
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.registry import known_implementations
from PIL import Image

from coincide_pl.data.image_states import images_digest
from coincide_pl.data.images import open_image, unusable_images
from coincide_pl.data.readers import ChatDataset, Mix, ShardDataset
from coincide_pl.data.readers.conversation import llava_item
from coincide_pl.data.shards.lists import expanded, unexpanded
from coincide_pl.data.shards.packed import Packed
from coincide_pl.data.shards.tar import Bytes, members
from coincide_pl.errors import DataError
from coincide_pl.signals import load_signals

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TALK = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "that"}]


def picture(number, kind="png"):
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (number, 0, 0)).save(file, kind)
    return file.getvalue()


def write_tar(path, parts, **options):
    """A tar with some members: name and content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in parts:
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path):
    """Three tar shards of four samples; every fourth has no image, every third two."""
    for shard in range(3):
        parts = []
        for i in range(4):
            number = 4 * shard + i
            images = 0 if i == 3 else 1 + (i == 2)
            marks = "<image>" * images
            said = [
                {"from": "human", "value": f"{marks}\nwhat is {number}?"},
                {"from": "gpt", "value": f"it is {number}"},
            ]
            parts += [(f"s{number:03}.{k}.png", picture(20 * number + k)) for k in range(images)]
            parts.append((f"s{number:03}.json", {"conversations": said, "task_name": "sort"}))
        write_tar(tmp_path / "shards" / f"part-{shard:03}.tar", parts)
    return tmp_path / "shards"


def reds(records):
    root = records.image_root
    return [[open_image(root, i).getpixel((0, 0))[0] for i in r.images] for r in records]


EXPECTED = [
    [] if number % 4 == 3 else [20 * number + k for k in range(1 + (number % 4 == 2))]
    for number in range(12)
]


def test_webdataset(shards, tmp_path):
    records = ShardDataset(str(shards)).records(tmp_path / "cache")
    assert reds(records) == EXPECTED
    assert [record.id for record in records] == [f"s{n:03}" for n in range(12)]
    assert [record.turns[1].text for record in records] == [f"it is {n}" for n in range(12)]
    assert records.name(5) == f"{shards}/part-001.tar: record 1 (id 's005')"
    assert set(records.sources) == {"sort"}
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".png"]
    order = np.random.default_rng(0).permutation(12)  # random access, by row
    assert [reds_of(records, int(row)) for row in order] == [EXPECTED[row] for row in order]


def reds_of(records, row):
    root = records.image_root
    return [open_image(root, i).getpixel((0, 0))[0] for i in records[row].images]


def test_an_index_is_made_once_and_goes_on(shards, tmp_path, monkeypatch):
    from coincide_pl.data.readers import shards as module

    made = []

    def write(shard, target, whole=module.write_index):
        made.append(Path(shard).name)
        if len(made) == 2:
            raise DataError("stopped")
        whole(shard, target)

    monkeypatch.setattr(module, "write_index", write)
    with pytest.raises(DataError, match="stopped"):
        ShardDataset(str(shards), num_threads=1).records(tmp_path / "cache")
    first = len(made)
    records = ShardDataset(str(shards), num_threads=1).records(tmp_path / "cache")
    assert reds(records) == EXPECTED
    assert len(made) < first + 3  # what was done was not done again
    made.clear()
    assert ShardDataset(str(shards), "train", "task_name").records(tmp_path / "cache")
    assert made == []
    shard = shards / "part-001.tar"
    shutil.copy(shard, shards / "copy")
    shard.unlink()
    (shards / "copy").rename(shard)
    assert reds(ShardDataset(str(shards)).records(tmp_path / "cache")) == EXPECTED
    assert made == ["part-001.tar"]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_as_pythons_own_reader_sees_it(tmp_path, kind):
    long = "ü" * 30 + "/" + "d" * 80
    names = ["a.json", "deep/er/b.json", f"{long}/c.json", "d" * 90 + ".jpg", "e f.json"]
    path = write_tar(
        tmp_path / "x.tar", [(n, bytes([i]) * (i * 400)) for i, n in enumerate(names)], format=kind
    )
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    assert list(members(Bytes(str(path)))) == expected


def test_image_names_of_the_json_give_the_order(tmp_path):
    two = [{"from": "human", "value": "<image> or <image>?"}, TALK[1]]
    parts = [
        ("a.left.png", picture(10)),
        ("a.right.png", picture(20)),
        ("a.json", {"image": ["x/a.right.png", "x/a.left.png"], "conversations": two}),
        ("b.jpg", picture(30, "jpeg")),
        ("b.json", TALK),
        ("c.png", picture(40)),
        ("c.json", {"image": "coco/123.jpg", "texts": [{"user": "u", "assistant": "v"}]}),
    ]
    write_tar(tmp_path / "s" / "x.tar", parts)
    records = ShardDataset(str(tmp_path / "s" / "x.tar")).records(tmp_path / "cache")
    assert reds(records) == [[20, 10], [30], [40]]
    assert [turn.text for turn in records[2].turns] == ["<image>\nu", "v"]
    assert records.sources == ["image"] * 3


@pytest.mark.parametrize(
    ("asked", "there"),
    [("x.jpg", 0), ("data:image/png;base64,aaaa", 0), (["a.png", "b.png"], 1), ("x.jpg", 2)],
)
def test_an_image_that_the_json_names_and_the_shard_lacks(tmp_path, asked, there):
    """Else the sample becomes text, or is read with fewer images, and nobody hears of it."""
    content = {"image": asked, "conversations": [{**TALK[0], "value": "what?"}, TALK[1]]}
    pictures = [(f"1.{'ac'[k]}.png", picture(k)) for k in range(there)]
    path = write_tar(tmp_path / "x.tar", [("1.json", content), *pictures])
    with pytest.raises(DataError, match=f"names images of which the shard holds {there}"):
        ShardDataset(str(path)).records(tmp_path / "cache")


def test_a_shard_that_holds_links_or_ends_early(tmp_path):
    """Images that are not in it are missed, not left out."""
    path = write_tar(tmp_path / "x.tar", [("1.json", TALK), ("1.png", picture(1))])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"1.png") + 200])
    with pytest.raises(DataError, match="ends inside a header"):
        ShardDataset(str(path)).records(tmp_path / "cache")
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "../1.png"
        tar.addfile(link)
    with pytest.raises(DataError, match=r"'1\.png' is a link; pack with tar --dereference"):
        ShardDataset(str(path)).records(tmp_path / "cache")


def test_members_that_share_a_key(tmp_path):
    """The .json is the text; members about the shard are none; one name twice is an error."""
    more = [("a.meta.json", {"x": 1}), ("a.json", TALK), ("a.png", picture(9)), ("a.cls", b"3")]
    about = [("__index__/x.json", TALK), *more]
    path = write_tar(tmp_path / "x.tar", about)
    records = ShardDataset(str(path)).records(tmp_path / "cache")
    assert [record.turns[1].text for record in records] == ["that"]
    (said,) = records.notes.messages
    assert "'.cls' (1 records), '.meta.json' (1 records)" in said
    write_tar(path, [*about, ("a.png", picture(8))])
    with pytest.raises(DataError, match=r"x\.tar: can't be read \('a\.png' is there twice\)"):
        ShardDataset(str(path)).records(tmp_path / "cache")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a{08..11}", ["a08", "a09", "a10", "a11"]),
        ("a{9..11}{x,y}", ["a9x", "a9y", "a10x", "a10y", "a11x", "a11y"]),
        ("a{,b}", ["a", "ab"]),
        ("a{b}", ["a{b}"]),
        ("a\\{1\\,2\\}", ["a{1,2}"]),
    ],
)
def test_braces_as_energon_expands_them(pattern, names):
    """What the package `braceexpand` makes of them."""
    assert expanded(pattern) == names
    assert [one for name in names for one in expanded(unexpanded(name))] == names


def test_energon(shards, tmp_path):
    """Its shards, split and exclusions, as `energon prepare` writes them."""
    (shards / ".nv-meta").mkdir()
    (shards / ".nv-meta" / "split.yaml").write_text(
        "split_parts:\n  train: ['part-{000..001}.tar']\n  val: [part-002.tar]\n"
        "exclude: [part-000.tar/s001]\n"
    )
    (shards / ".nv-meta" / ".info.json").write_text(
        json.dumps({"shard_counts": {f"part-00{k}.tar": 4 for k in range(3)}})
    )
    train = ShardDataset(str(shards)).records(tmp_path / "cache")
    assert [record.id for record in train] == [f"s{n:03}" for n in range(8) if n != 1]
    val = ShardDataset(str(shards), "val").records(tmp_path / "cache")
    assert [record.id for record in val] == [f"s{n:03}" for n in range(8, 12)]
    split = shards / ".nv-meta" / "split.yaml"
    split.write_text(split.read_text().replace("/s001", "/s002"))
    again = ShardDataset(str(shards)).records(tmp_path / "cache")
    assert [record.id for record in again] == [f"s{n:03}" for n in range(8) if n != 2]
    with pytest.raises(DataError, match=r"split\.yaml: tells no split 'test'"):
        ShardDataset(str(shards), "test")
    split.write_text(
        split.read_text().replace("[part-000.tar/s002]", "['part-000.tar/s{002,003}']")
    )
    split.rename(split.with_suffix(".json"))  # YAML, as JSON is
    again = ShardDataset(str(shards)).records(tmp_path / "cache")
    assert [record.id for record in again] == [f"s{n:03}" for n in range(8) if n not in (2, 3)]


def test_parquet(tmp_path):
    """Rows as the Hub has them, in several row groups, are what `ChatDataset` makes of them."""
    folder = tmp_path / "data"
    folder.mkdir()
    for shard in range(2):
        rows = [
            {
                "id": str(10 * shard + i),
                "images": [{"bytes": picture(20 * i + 9 * k), "path": None} for k in range(i % 3)],
                "texts": [{"user": f"q{i}", "assistant": f"a{i}"}],
                "source": "made",
            }
            for i in range(7)
        ]
        table = pa.Table.from_pylist(rows)
        table = table.set_column(1, "images", table["images"].cast(pa.list_(IMAGE)))
        name = f"train-0000{shard}-of-00002.parquet"
        pq.write_table(table, folder / name, row_group_size=3)
    records = ShardDataset(str(folder)).records(tmp_path / "cache")
    unpacked = ChatDataset(str(folder)).records(tmp_path / "other")
    assert reds(records) == reds(unpacked)
    assert [r.turns for r in records] == [r.turns for r in unpacked]
    assert not (tmp_path / "cache" / "images").exists()


def test_one_image_a_row_in_parquet(tmp_path):
    rows = [
        {
            "image": None if i == 1 else {"bytes": picture(30 * i), "path": None},
            "query": "q",
            "response": "a",
        }
        for i in range(4)
    ]
    table = pa.Table.from_pylist(rows)
    table = table.set_column(0, "image", table["image"].cast(IMAGE))
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=3)
    records = ShardDataset(str(tmp_path / "x.parquet")).records(tmp_path / "cache")
    assert reds(records) == [[0], [], [60], [90]]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", [IMAGE, pa.struct([("bytes", pa.binary())]), pa.binary()])
def test_images_in_a_column_of_any_name_and_type(tmp_path, kind, nested):
    """Those that a column of another name holds are found by `columns`."""
    images = [
        picture(30 * i) if pa.types.is_binary(kind) else {"bytes": picture(30 * i)}
        for i in range(3)
    ]
    column = pa.array(
        [[i] for i in images] if nested else images, pa.list_(kind) if nested else kind
    )
    table = pa.table({"pi(cs": column, "query": ["q"] * 3, "response": ["a"] * 3})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    reader = ShardDataset(str(tmp_path / "x.parquet"), columns={"images": "pi(cs"})
    assert reds(reader.records(tmp_path / "cache")) == [[0], [30], [60]]


@pytest.fixture
def memory(shards):
    """The shards in fsspec's memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    for shard in shards.iterdir():
        system.pipe_file(f"/bucket/{shard.name}", shard.read_bytes())
    yield "memory://bucket"
    system.store.clear()


def test_a_url(memory, shards, tmp_path):
    records = ShardDataset(memory).records(tmp_path / "cache")
    assert reds(records) == EXPECTED
    here = ShardDataset(str(shards)).records(tmp_path / "cache")
    assert records.fingerprint == here.fingerprint  # wherever they lie
    assert records.name(5).startswith("memory://bucket/part-001.tar: record 1")
    digest = images_digest(records)
    assert digest == images_digest(records)
    again = ShardDataset(memory).records(tmp_path / "cache")
    assert again.path == records.path
    one = ShardDataset(f"{memory}/part-002.tar").records(tmp_path / "cache")
    assert reds(one) == EXPECTED[8:]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and ranges of them."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        wanted = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if not wanted or not path.is_file():
            super().do_GET()
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        content = path.read_bytes()
        end = min(int(last or len(content)), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
        self.send_header("Content-Length", str(end + 1 - int(first)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(content[int(first) : end + 1])


@pytest.fixture
def server(shards):
    """A server on this machine that gives the shards."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shards))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_server(server, tmp_path):
    records = ShardDataset(f"{server}/part-001.tar").records(tmp_path / "cache")
    assert reds(records) == EXPECTED[4:8]


def test_shards_in_a_mix(memory, shards, tmp_path):
    """Beside each other: tar shards here and at a URL, each under its name."""
    listing = [
        {"name": "here", "dataset_path": str(shards)},
        {"name": "there", "dataset_path": memory},
    ]
    (tmp_path / "mix.json").write_text(json.dumps(listing))
    records = Mix(str(tmp_path / "mix.json")).records(tmp_path / "cache")
    assert records.sources == ["here"] * 12 + ["there"] * 12
    assert reds(records) == EXPECTED * 2
    assert images_digest(records, content=True)


def test_what_is_wrong_with_a_shard_is_named(shards, tmp_path):
    shard = shards / "part-001.tar"
    whole = shard.read_bytes()
    for content, said in (
        (whole[: 3 * 512], r"can't be read \(ends inside|not a tar"),
        (b"x" * 2048, "not a tar"),
        (whole[:1024] + b"x" * 512 + whole[1536:], "damaged at byte"),
    ):
        shard.write_bytes(content)
        with pytest.raises(DataError, match=said) as error:
            ShardDataset(str(shards)).records(tmp_path / "cache")
        assert "part-001.tar" in str(error.value)
    for parts, said in (
        ([("a.jpg", b"x"), ("a.txt", b"words")], "has no .json with a conversation; its other"),
        ([("a.json", b"{")], "its .json is not JSON"),
        ([("a.mp4", b"x"), ("a.json", {"conversations": TALK})], "'videos' holds media"),
        ([("a.json", {"conversations": TALK})], "1 <image> marks but 0 images|shows image 1 of 0"),
    ):
        write_tar(shard, parts)
        with pytest.raises(DataError, match=said) as error:
            ShardDataset(str(shards)).records(tmp_path / "cache")
        assert f"{shard}: record 0 (id 'a')" in str(error.value)
        skipped = ShardDataset(str(shards), on_error="skip").records(tmp_path / "cache")
        assert len(skipped) == 8


def test_an_image_that_is_damaged_is_named(shards, tmp_path):
    records = ShardDataset(str(shards)).records(tmp_path / "cache")
    name = records[4].images[0]
    packed = Packed.of(name)
    shard = shards / packed.shard
    content = bytearray(shard.read_bytes())
    content[packed.first : packed.first + packed.second] = b"x" * packed.second
    shard.write_bytes(content)
    (bad,) = unusable_images(records.image_root, records.image_names)
    assert bad == name
    with pytest.raises(DataError, match=r"part-001\.tar!/s004\.0\.png.*: not an image"):
        open_image(records.image_root, name)
    shard.unlink()
    with pytest.raises(DataError, match="no such image"):
        open_image(records.image_root, name)
    with pytest.raises(DataError, match="leads outside"):
        open_image(records.image_root, "../x.tar!/a.png#0+10")


def test_a_folder_without_shards(tmp_path):
    with pytest.raises(DataError, match=r"no \.tar or \.parquet files"):
        ShardDataset(str(tmp_path))
    with pytest.raises(DataError, match="no such file or folder"):
        ShardDataset(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nosuch://x: can't be opened"):
        ShardDataset("nosuch://x").records(tmp_path / "cache")


def test_what_opens_an_address_is_named_with_the_command(tmp_path, monkeypatch):
    about = {"class": "nosuchfs.core.NoSuch", "err": "Install nosuchfs"}
    monkeypatch.setitem(known_implementations, "nosuch", about)
    with pytest.raises(DataError, match=r"^nosuch://x: pip install nosuchfs opens such addresses$"):
        ShardDataset("nosuch://x").records(tmp_path / "cache")


def test_the_commands_take_an_address(memory, tmp_path, tiny, command, monkeypatch):
    """From index to subset, as `s3://…` would be given."""
    monkeypatch.chdir(tmp_path)
    data = ("--data.train=ShardDataset", f"--data.train.path={memory}", "--data.cache_dir=cache")
    data += ("--data.num_workers=0", "--trainer.accelerator=cpu", "--data.signals=signals")
    model = ("--model=ReferenceModule", f"--model.pretrained={tiny}", "--model.layers=[1]")
    for verb, *others in (
        ("predict", *data, *model, "--model.signals=[el2n]"),
        ("select", *data, "--data.selector=EL2N", "--data.fraction=0.5"),
        ("subset", "run", "--output=chosen.tar"),
        ("subset", "run", "--output=chosen.tar", "--check=true"),
    ):
        root = ("--trainer.default_root_dir=run",) if verb == "select" else ()
        status, _, message = command(verb, *others, *root)
        assert status == 0, message
    assert len(ShardDataset("chosen.tar").records("cache")) == 6


def test_signals_and_training_are_those_of_the_unpacked_data(shards, tmp_path, tiny, command):
    """The same rows, in the same batches, from shards and from files: the same numbers."""
    items = []
    for record in ShardDataset(str(shards)).records(tmp_path / "cache"):
        for image in record.images:
            packed = Packed.of(image)
            target = tmp_path / "unpacked" / packed.member
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(packed.read(shards))
        item = llava_item(record)
        item |= {"image": [Packed.of(image).member for image in record.images]}
        items.append(item)
    (tmp_path / "unpacked" / "data.json").write_text(json.dumps(items))
    found = []
    for kind, place in (("ShardDataset", shards), ("LlavaJson", tmp_path / "unpacked/data.json")):
        data = (f"--data.train={kind}", f"--data.train.path={place}", "--data.batch_size=5")
        data += (f"--data.cache_dir={tmp_path}/cache", "--trainer.accelerator=cpu")
        status, _, said = command(
            *("predict", "--model=ReferenceModule", f"--model.pretrained={tiny}", *data),
            *("--model.signals=[last_token]", f"--data.signals={tmp_path}/{kind}"),
            f"--trainer.default_root_dir={tmp_path}/{kind}-run",
        )
        assert status == 0, said
        found.append(load_signals(tmp_path / kind)["last_token"])
        status, _, said = command(
            *("fit", "--model=TargetModule", f"--model.pretrained={tiny}", *data),
            *("--data.num_workers=1", "--trainer.max_epochs=1", "--trainer.logger=false"),
            f"--trainer.default_root_dir={tmp_path}/{kind}-fit",
        )
        assert status == 0, said
    assert np.array_equal(*found)
    models = [
        (tmp_path / f"{k}-fit/model/model.safetensors") for k in ("ShardDataset", "LlavaJson")
    ]
    assert models[0].read_bytes() == models[1].read_bytes()
