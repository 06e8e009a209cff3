"""Lost if these fail: what a shell's Tab offers, which costs a start without a shell nothing."""

import pytest

pytest.importorskip("argcomplete")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("coincide exp", {"export"}),
        ("coincide fit --config selectors/co", {"selectors/coincide"}),
        ("coincide fit --config=data/ll", {"--config=data/llava", "--config=data/llava15"}),
        ("coincide overlap --outp", {"--output"}),
        ("coincide fit --trainer.max_e", {"--trainer.max_epochs"}),
    ],
)
def test_a_word_goes_on(line, offered, runner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "offered"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    result = runner()
    assert result.status == 0, result.message
    assert {word.strip() for word in (tmp_path / "offered").read_text().split("\n")} == offered
