"""Lost if these fail: without a network, a name on the hub is refused at once, in a line."""

import pytest
from huggingface_hub import constants

from coincide_pl.errors import ModelError
from coincide_pl.models import ReferenceModule, hub


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub, "reachable", lambda host, port: False)


def test_a_model_that_is_not_cached_is_named(no_network):
    with pytest.raises(ModelError, match=r"nobody/nothing: .* does not answer: connect, or name"):
        ReferenceModule("nobody/nothing", [0])


def test_the_cache_is_used(no_network, monkeypatch, tiny):
    monkeypatch.setattr(hub, "cached", lambda name: tiny)
    hub.check_hub("somebody/something")
    assert constants.is_offline_mode()


def test_a_port_where_nobody_listens():
    assert not hub.reachable("127.0.0.1", 9)
