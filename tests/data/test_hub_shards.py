"""Lost if these fail: shards on the Hub, read through `hf://` without being downloaded."""

import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import HfFileSystem, constants
from PIL import Image

from coincide_pl.data.images import open_image
from coincide_pl.data.readers import ShardDataset


def shard(first):
    """A tar of five samples with an image each, whose color tells its number."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(first, first + 5):
            image = io.BytesIO()
            Image.new("RGB", (6, 5), (number, 0, 0)).save(image, "png")
            said = [
                {"from": "human", "value": "<image>\nwhat?"},
                {"from": "gpt", "value": str(number)},
            ]
            for ending, content in (("png", image.getvalue()), ("json", json.dumps(said).encode())):
                about = tarfile.TarInfo(f"s{number:03}.{ending}")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    return file.getvalue()


FILES = {"data/000.tar": shard(0), "data/001.tar": shard(5)}


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's API as its file system asks for, of one data set."""

    def log_message(self, *_):
        pass

    def give(self, content, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self):
        path, about = self.path.partition("?")[0], [self.entry(name) for name in FILES]
        if "/resolve/" in path:
            self.piece(FILES[path.partition("/resolve/")[2].partition("/")[2]])
        elif "/tree/" in path:
            self.give(json.dumps(about).encode())
        else:
            self.give(json.dumps({"id": "me/mine", "sha": "a" * 40, "siblings": []}).encode())

    do_HEAD = do_GET

    def do_POST(self):
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        found = [self.entry(name) for name in FILES if name in asked.replace("%2F", "/")]
        folder = {"type": "directory", "oid": "c" * 40, "size": 0, "path": "data"}
        self.give(json.dumps(found or [folder] * (".nv-meta" not in asked)).encode())

    def entry(self, name):
        return {"type": "file", "oid": "b" * 40, "size": len(FILES[name]), "path": name}

    def piece(self, content):
        asked = self.headers.get("Range")
        if not asked:
            self.give(content)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        end = min(int(last or len(content)), len(content) - 1)
        whole = f"bytes {first}-{end}/{len(content)}"
        self.give(content[int(first) : end + 1], 206, Content_Range=whole)


@pytest.fixture
def hub(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        HfFileSystem.clear_instance_cache()
        yield
        HfFileSystem.clear_instance_cache()
        server.shutdown()
        thread.join()


def test_shards_on_the_hub(hub, tmp_path):
    records = ShardDataset("hf://datasets/me/mine/data").records(tmp_path / "cache")
    assert [record.turns[1].text for record in records] == [str(n) for n in range(10)]
    for row in (7, 0, 9, 3):
        image = open_image(records.image_root, records[row].images[0])
        assert image.getpixel((0, 0))[0] == row
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {
        *(".arrow", ".digest", ".json"),
    }
