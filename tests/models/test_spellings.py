"""Lost if these fail: an export that transformers 4 loads without an error, and gets wrong."""

import json

import torch
from safetensors.torch import load_file

from coincide_pl.models.loading import load_model, save_checkpoint
from coincide_pl.models.spellings import with_older


def test_rotary_positions_in_both_spellings():
    """As the published configs of version 4 have them."""
    plain = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    assert with_older(plain) == {**plain, "rope_theta": 5e5}
    llama3 = {"factor": 8.0, "rope_type": "llama3", "original_max_position_embeddings": 8192}
    text = {"rope_parameters": {"rope_theta": 5e5, **llama3}}
    both = with_older({"model_type": "llava", "text_config": text})
    assert both["text_config"] == {**text, "rope_theta": 5e5, "rope_scaling": llama3}
    mrope = {"mrope_section": [16, 24, 24], "rope_type": "default"}
    both = with_older({"rope_parameters": {"rope_theta": 1e6, **mrope}})
    assert (both["rope_theta"], both["rope_scaling"]) == (1e6, mrope)
    phi = {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}
    phi["rope_parameters"]["partial_rotary_factor"] = 0.4
    assert with_older(phi)["partial_rotary_factor"] == 0.4
    layers = {
        "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
    }
    both = with_older({"rope_parameters": layers})
    assert (both["rope_theta"], both["rope_local_base_freq"]) == (1e6, 1e4)
    assert both["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


def test_an_export_is_read_by_both_versions(tiny, tmp_path):
    model = load_model(tiny)
    model.config.text_config.rope_parameters["rope_theta"] = 123456.0
    save_checkpoint(tmp_path / "out", model)
    text = json.loads((tmp_path / "out/config.json").read_text())["text_config"]
    assert text["rope_theta"] == text["rope_parameters"]["rope_theta"] == 123456.0
    names = load_file(tmp_path / "out/model.safetensors")
    assert any("vision_tower.vision_model.embeddings." in name for name in names)
    assert not any("vision_tower.embeddings." in name for name in names)
    again = load_model(str(tmp_path / "out"))
    assert again.config.text_config.rope_parameters["rope_theta"] == 123456.0
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)


def test_what_can_not_be_spelled_for_both_says_so(tiny, tmp_path, monkeypatch, caplog):
    wrong = {"rope_theta": 1.0, "rope_type": "default"}
    monkeypatch.setattr(
        "coincide_pl.models.spellings.with_older", lambda config: {**config, "rope_scaling": wrong}
    )
    model = load_model(tiny).model.language_model
    save_checkpoint(tmp_path / "out", model)
    assert f"{tmp_path / 'out'}: load it with transformers>=5 only" in caplog.text
    assert "rope_scaling" not in (tmp_path / "out/config.json").read_text()
