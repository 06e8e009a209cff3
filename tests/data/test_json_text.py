"""Lost if these fail: files of any size read item by item, as JSON says, or a named error."""

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coincide_pl.data.readers import json_text
from coincide_pl.errors import DataError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
BLOCKS = st.sampled_from([3, 17, 1 << 20])


@settings(max_examples=60, deadline=None)
@example([0.5, 1e22, -3e-7], 3, False)
@example([{"a": 1}, "\ud800"], 3, False)
@given(st.lists(JSON, max_size=6), BLOCKS, st.booleans())
def test_items_are_what_json_says(tmp_path_factory, items, size, lines):
    path = tmp_path_factory.mktemp("json") / "data.json"
    if lines:
        items = [{"a": item} for item in items]
        path.write_text("\n".join(map(json.dumps, items)))
    else:
        path.write_text(json.dumps(items, indent=1 if size == 17 else None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "BUFFER", size)
        assert list(json_text.json_items(path)) == items
    for write in (json_text.json_array, json_text.json_lines):
        path.write_text("".join(write(items)))
        if write is json_text.json_array or (items and not isinstance(items[0], list)):
            assert list(json_text.json_items(path)) == items


@settings(max_examples=100, deadline=None)
@example(b'{"a": 1}\n{"a"', 3)
@given(st.binary(max_size=60) | st.text('[]{}",:1e- \\u\n', max_size=40).map(str.encode), BLOCKS)
def test_anything_else_is_one_line_that_names_the_file(tmp_path_factory, content, size):
    path = tmp_path_factory.mktemp("json") / "data.json"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "BUFFER", size)
        try:
            items, told = list(json_text.json_items(path)), None
        except DataError as error:
            told = str(error)
    if told is not None:
        assert told.startswith(f"{path}: ")
        assert "\n" not in told
    elif (
        content.decode("utf-8-sig", "ignore").strip()[:1] == "["
    ):  # what was read is all that it holds
        assert items == json.loads(content.decode("utf-8-sig", "ignore"))


def test_what_is_wrong_early_does_not_read_the_rest(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('[{"a": 1}, {"b" 2}, ' + "0, " * 1_000_000 + "0]")
    with pytest.raises(DataError, match=re.escape("record 1: not JSON: Expecting ':'")):
        list(json_text.json_items(path))
