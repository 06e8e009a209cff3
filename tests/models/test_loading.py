"""Lost if these fail: a model whose weights were all loaded, and whose names were all known."""

import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModel

from coincide_pl.errors import FileError, ModelError
from coincide_pl.models import CLIPModule, LoRA, TargetModule
from coincide_pl.models.conversion.convert import TOWER
from coincide_pl.models.loading import check_output, load_model, load_whole
from coincide_pl.models.tiny import tiny_clip


def changed(source, folder, name_of):
    """A copy of a checkpoint whose weights have other names, or none."""
    shutil.copytree(source, folder)
    file = folder / "model.safetensors"
    weights = {name_of(name): value for name, value in load_file(file).items()}
    weights.pop(None, None)
    save_file(weights, file, {"format": "pt"})
    return str(folder)


def test_no_part_of_a_model_is_left_at_random(tiny, tmp_path):
    assert load_model(tiny).lm_head.weight is not None  # tied, so in no file
    prefixed = changed(tiny, tmp_path / "a", lambda name: f"base_model.model.{name}")
    with pytest.raises(ModelError, match=r"a: \d+ weights \(.*\) are missing.*base_model.model"):
        load_model(prefixed)
    lacking = changed(tiny, tmp_path / "b", lambda name: None if "projector" in name else name)
    with pytest.raises(ModelError, match=r"b: 4 weights \(.*projector.*, \.\.\.\) are missing"):
        load_model(lacking)
    with pytest.raises(ModelError, match="are missing"):
        TargetModule(lacking).configure_model()
    clip = str(tmp_path / "clip")
    tiny_clip(clip)
    CLIPModule(clip).configure_model()
    lacking = changed(clip, tmp_path / "c", lambda n: None if n == "logit_scale" else n)
    with pytest.raises(ModelError, match=r"c: 1 weights \(logit_scale\) are missing"):
        CLIPModule(lacking).configure_model()
    tower = changed(clip, tmp_path / "d", lambda n: None if "layers.1.mlp" in n else n)
    with pytest.raises(ModelError, match=r"d: \d+ weights \(.*mlp.*\) are missing"):
        load_whole(CLIPVisionModel, tower, TOWER)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"lora": LoRA(4, target_modules=["q_proj", "k_porj"])},
            r"lora.target_modules: .* called 'k_porj' \(did you mean k_proj",
        ),
        ({"lora": LoRA(4, dropout=1.5)}, r"lora.dropout: 1.5 is outside"),
        ({"freeze": ["vision"]}, r"has no part 'vision' \(did you mean vision_tower"),
        ({"freeze": ["model.vision_tower.vision_model.encoder.layer"]}, r"did you mean .*layers"),
        ({"parts": {"projector": "model.projector"}}, r"has no part 'model.projector'"),
    ],
)
def test_a_name_that_stands_for_nothing_is_no_option(tiny, options, message):
    with pytest.raises(ModelError, match=message):
        TargetModule(tiny, **options).configure_model()


@pytest.mark.parametrize("rates", [{"projektor": 1e-3}, {"model.language_model.layer": 1e-3}])
def test_a_learning_rate_of_nothing_is_a_mistake(tiny, rates):
    module = TargetModule(tiny, learning_rates=rates)
    module.configure_model()
    with pytest.raises(ModelError, match=r"has no part .* \(did you mean"):
        module.parameter_groups()


def test_no_checkpoint_takes_the_place_of_what_is_none(tmp_path, command):
    images = tmp_path / "images"
    images.mkdir()
    out = f"--output={images}"
    tiny_clip(str(images))  # an empty folder
    tiny_clip(str(images), seed=1)  # a checkpoint
    (images / "config.json").unlink()
    (tmp_path / "mix.json").write_text("[]")
    for place in (images, tmp_path, tmp_path / "mix.json"):
        with pytest.raises(FileError, match="holds something else, which would be lost"):
            check_output(place)
        assert place.exists()
    status, _, said = command("create-tiny-clip", out)
    assert (status, "which would be lost; name another folder" in said) == (1, True)
    assert (images / "model.safetensors").is_file()


def test_no_checkpoint_takes_the_place_of_what_it_is_made_from(tmp_path, command):
    tower = tmp_path / "tower"
    tiny_clip(str(tower))
    status, _, said = command(
        "assemble", f"--output={tower}", "--text_model=owner/name", f"--vision_tower={tower}"
    )
    assert (status, f"would replace {tower}, which is read" in said) == (1, True)
    (tower / "adapters").mkdir()
    (tower / "adapters/adapter_config.json").write_text("{}")
    status, _, said = command("export", tower / "adapters", f"--output={tower}")
    assert (status, "adapters, which is read" in said) == (1, True)
    check_output(tmp_path / "new", str(tower), None, "owner/name")
