"""Lost if these fail: original LLaVA-1.5 and TinyLLaVA checkpoints with the original's numbers."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import PhiConfig, PhiForCausalLM

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.images import open_image
from coincide_pl.data.readers import LlavaJson
from coincide_pl.errors import ModelError
from coincide_pl.models import ReferenceModule, TargetModule
from coincide_pl.models.conversion.convert import convert
from coincide_pl.models.conversion.llava_checkpoints import read_weights
from coincide_pl.models.loading import load_model
from coincide_pl.models.parts import layer_part
from coincide_pl.models.processors import load_processor

PARITY = Path(__file__).parents[1] / "data" / "parity"
LLAVA, TINY = PARITY / "llava15", PARITY / "tinyllava"


def test_pixels_are_the_originals(llava15):
    encoder = Encoder(load_processor(llava15))
    for name, pixels in np.load(LLAVA / "expected_pixels.npz").items():
        ours = encoder.encode_image(open_image(LLAVA / "images", f"{name}.png"))
        assert np.array_equal(ours.inputs["pixel_values"][0].numpy(), pixels)


def test_logits_and_losses_are_the_originals(llava15, tmp_path):
    stage1 = tmp_path / "stage1"
    shutil.copytree(LLAVA / "llava-v1.5-tiny", stage1)
    shutil.copy(LLAVA / "stage1" / "vicuna-tiny" / "config.json", stage1 / "config.json")
    for file in stage1.glob("pytorch_model*"):
        file.unlink()
    weights = read_weights(LLAVA / "llava-v1.5-tiny")
    language = {name: value for name, value in weights.items() if "projector" not in name}
    save_file(language, stage1 / "model.safetensors")
    tower, projector = str(LLAVA / "clip"), str(LLAVA / "stage1" / "mm_projector.bin")
    convert(str(stage1), str(tmp_path / "assembled"), vision_tower=tower, projector=projector)
    expected = np.load(LLAVA / "expected_logits.npz")
    conversations = json.loads((LLAVA / "conversations.json").read_text())
    for checkpoint in (llava15, str(tmp_path / "assembled")):
        module = TargetModule(checkpoint)
        module.configure_model()
        module.eval()
        for name in ("single", "two_turns", "no_image"):
            items = [{"id": name, "conversations": conversations[name]}]
            if str(expected[f"{name}__image"]):
                items[0]["image"] = str(expected[f"{name}__image"]) + ".png"
            (tmp_path / "data.json").write_text(json.dumps(items))
            reader = LlavaJson(str(tmp_path / "data.json"), str(LLAVA / "images"))
            batch = EncodedBatches(
                reader.records(tmp_path / name / checkpoint[-3:]), Encoder(module.processor)
            )[[0]]
            pixels = batch.image_inputs
            with torch.no_grad():
                logits = module.model(input_ids=batch.input_ids, **pixels).logits[0]
                loss = torch.nn.functional.cross_entropy(*module(batch))
            difference = logits[:, :1500:4].numpy() - expected[f"{name}__logits"]
            assert np.abs(difference).max() < 1e-4
            assert float(loss) == pytest.approx(float(expected[f"{name}__loss"]), abs=1e-5)


@pytest.mark.parametrize("size", [1, 3, 20])
def test_activations_are_the_authors(tinyllava, tmp_path, size):
    expected = np.load(TINY / "expected_features.npz")
    records = LlavaJson(str(TINY / "data.json")).records(tmp_path)
    module = ReferenceModule(tinyllava, expected["layers"].tolist())
    module.configure_model()
    batches = EncodedBatches(records, Encoder(module.processor))
    rows = [list(range(i, min(i + size, 20))) for i in range(0, 20, size)]
    ours = torch.cat([module.predict_step(batches[own])["activations"] for own in rows])
    np.testing.assert_allclose(ours.float(), expected["features"].astype("f4"), atol=2e-4)


def test_tinyllavas_tokens_and_logits_are_the_originals(tinyllava, tmp_path):
    expected = np.load(TINY / "expected_logits.npz")
    records = LlavaJson(str(TINY / "data.json")).records(tmp_path)
    model = load_model(tinyllava).eval()
    encoder = Encoder(load_processor(tinyllava))
    for row in (0, 3):
        batch = EncodedBatches(records, encoder)[[row]]
        ids = batch.input_ids[0][~batch.image_mask[0]].tolist()
        assert ids == [token for token in expected[f"{row}__input_ids"].tolist() if token != -200]
        assert float(batch.image_inputs["pixel_values"].double().sum()) == pytest.approx(
            float(expected[f"{row}__pixel_sum"]), abs=1e-6
        )
        with torch.no_grad():
            logits = model(input_ids=batch.input_ids, **batch.image_inputs).logits[0]
        text = expected[f"{row}__logits_text"]
        assert np.abs(logits[-len(text) :, : text.shape[1]].numpy() - text).max() < 1e-4


def test_a_phi_text_model(tmp_path):
    """TinyLLaVA's other text model: the language half gives the logits of Phi's own class."""
    config = PhiConfig(
        vocab_size=1400,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        phi = PhiForCausalLM(config).eval()
    torch.nn.init.zeros_(phi.lm_head.bias)  # TinyLLaVA's head has none
    folder = tmp_path / "tinyllava-phi"
    shutil.copytree(TINY / "tinyllava-2.0b-tiny", folder)
    shutil.copytree(TINY / "siglip-tiny", tmp_path / "siglip-tiny")
    original = json.loads((folder / "config.json").read_text())
    sizes = {
        **{"model_type": "tiny_llava_phi", "num_hidden_layers": 2, "partial_rotary_factor": 0.5},
        **{"layer_norm_eps": 1e-5, "hidden_act": "gelu_new"},
    }
    (folder / "config.json").write_text(json.dumps({**original, **sizes}))
    projector = {k: v for k, v in read_weights(folder).items() if "projector" in k}
    for file in folder.glob("pytorch_model*"):
        file.unlink()
    state = {k: v for k, v in phi.state_dict().items() if k != "lm_head.bias"}
    torch.save({**state, **projector}, folder / "pytorch_model.bin")
    convert(str(folder), str(tmp_path / "out"))
    ids = torch.arange(1, 30)[None]
    with torch.no_grad():
        ours = load_model(str(tmp_path / "out")).eval()(input_ids=ids).logits
        torch.testing.assert_close(ours[..., :1400], phi(input_ids=ids).logits)
    model = load_model(str(tmp_path / "out"))
    found = layer_part(model, "attention_output", 0)
    assert found is model.model.language_model.layers[0].self_attn.dense


def test_adapters_alone(llava15, tmp_path):
    """LLaVA's own way to leave a LoRA finetuning: adapters, and the projector beside them."""
    base, lora = tmp_path / "vicuna", tmp_path / "llava-lora"
    base.mkdir()
    shutil.copytree(LLAVA / "llava-v1.5-tiny", lora)
    shutil.copytree(LLAVA / "clip", tmp_path / "clip")
    for file in lora.glob("pytorch_model*"):
        file.unlink()
    weights = read_weights(LLAVA / "llava-v1.5-tiny")
    torch.save(
        {k: v for k, v in weights.items() if "proj" not in k or "self" in k or "mlp" in k},
        base / "pytorch_model.bin",
    )
    layer = "model.layers.1.mlp.up_proj"
    down, up = torch.randn(4, 64), torch.randn(128, 4)
    adapter = {f"base_model.model.{layer}.lora_{n}.weight": w for n, w in (("A", down), ("B", up))}
    torch.save(adapter, lora / "adapter_model.bin")
    (lora / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    projector = {f"base_model.model.{k}": v + 1 for k, v in weights.items() if "projector" in k}
    torch.save(projector, lora / "non_lora_trainables.bin")
    with pytest.raises(ModelError, match="give their model with --base"):
        convert(str(lora), str(tmp_path / "out"))
    convert(str(lora), str(tmp_path / "out"), base=str(base))
    ours, plain = (load_model(str(p)).state_dict() for p in (tmp_path / "out", llava15))
    changed = {name for name in plain if not torch.equal(plain[name], ours[name])}
    (name,) = (n for n in changed if "projector" not in n)
    assert name.endswith("layers.1.mlp.up_proj.weight")
    torch.testing.assert_close(ours[name], plain[name] + 2 * up @ down)
    assert len(changed) == 5


def test_what_a_vocabulary_is_filled_up_with_is_never_said(llava15):
    model = load_model(llava15).eval()
    assert model.config.text_config.vocab_size == 1536
    assert model.generation_config.suppress_tokens == list(range(1500, 1536))
    tokens = model.generate(input_ids=torch.tensor([[1, 300]]), max_new_tokens=30, do_sample=True)
    assert int(tokens.max()) < 1500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not one of"),
        ({"image_aspect_ratio": "anyres"}, "LLaVA-1.6 is published"),
        ({"mm_vision_tower": "/absent"}, "no such vision tower"),
        ({"vocab_size": 1499}, "has 1500 rows, not 1499"),
        ({"num_hidden_layers": 5}, "weights do not fit"),
    ],
)
def test_wrong_originals_are_named(tmp_path, change, message):
    folder = tmp_path / "llava"
    shutil.copytree(LLAVA / "llava-v1.5-tiny", folder)
    shutil.copytree(LLAVA / "clip", tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=message):
        convert(str(folder), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_code_in_weights_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    folder = tmp_path / "llava"
    shutil.copytree(LLAVA / "llava-v1.5-tiny", folder)
    with (folder / "pytorch_model-00001-of-00002.bin").open("wb") as file:
        pickle.dump(Evil(), file)
    with pytest.raises(ModelError, match="not a file of tensors"):
        convert(str(folder), str(tmp_path / "out"))
    assert not (tmp_path / "ran").exists()


def test_the_command(command, tmp_path):
    status, _, _ = command("convert", LLAVA / "llava-v1.5-tiny", f"--output={tmp_path / 'out'}")
    assert status == 0
    load_model(str(tmp_path / "out"))
    status, _, message = command("convert", tmp_path, f"--output={tmp_path / 'out'}")
    assert status == 1
    assert "config.json" in message.splitlines()[-1]
