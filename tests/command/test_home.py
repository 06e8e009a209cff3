"""Lost if these fail: a folder called `~` where the home folder is meant."""

from jsonargparse import Namespace

from coincide_pl.command.parser import at_home, with_home


def test_the_home_folder_is_found_in_options_and_configs(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home("--data.signals=~/x") == "--data.signals=/home/me/x"
    assert at_home("~/run") == "/home/me/run"
    assert at_home("--x=a=~/b") == "--x=a=~/b"
    assert at_home("~other") == "~other"
    parsed = Namespace(output="~/x", data=Namespace(signals=["~/a", {"b": "~"}]), seed=3)
    found = with_home(parsed)
    assert found.output == "/home/me/x"
    assert found.data.signals == ["/home/me/a", {"b": "/home/me"}]
    assert found.seed == 3
