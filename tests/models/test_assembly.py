"""Lost if these fail: a LLaVA of any language model and any vision tower that works."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoProcessor, LlavaForConditionalGeneration
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from coincide_pl.data.encoding import Encoder
from coincide_pl.data.record import Record, Turn
from coincide_pl.errors import ModelError
from coincide_pl.models import language_model
from coincide_pl.models.assembly import assemble
from coincide_pl.models.loading import save_checkpoint
from coincide_pl.models.processors import load_processor
from coincide_pl.models.tiny import tiny_clip, tiny_tokenizer

TEXT = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "eos_token_id": 2,
}
GPT2 = {"vocab_size": 320, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.3,
}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As SmolLM2's and Qwen2's: it takes text alone."""


def words(size=320, template=CHATML):
    """A language model's tokenizer: no image token, no pad token."""
    made = tiny_tokenizer(size - 2).backend_tokenizer
    vocabulary = json.loads(made.to_str())
    vocabulary["added_tokens"] = [t for t in vocabulary["added_tokens"] if t["id"] in (1, 2)]
    vocabulary["model"]["vocab"].pop("<image>")
    vocabulary["model"]["vocab"].pop("<pad>")
    vocabulary["model"]["vocab"] |= {"<unused0>": 0, "<unused3>": 3}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(vocabulary)),
        bos_token="<s>",
        eos_token="<|im_end|>" if template else "</s>",
        chat_template=template,
    )
    tokenizer.add_tokens(["<|im_start|>"], special_tokens=True)
    return tokenizer


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Language models and towers of many kinds, in the layout that `save_pretrained` leaves."""
    folder = tmp_path_factory.mktemp("parts")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        texts = {
            "llama": (transformers.LlamaConfig(**TEXT), words(template=None)),
            "smollm": (transformers.LlamaConfig(**TEXT, tie_word_embeddings=True), words()),
            # with rows to spare, as Qwen2 has them
            "qwen2": (transformers.Qwen2Config(**{**TEXT, "vocab_size": 384}), words()),
            "gpt2": (transformers.GPT2Config(**GPT2), words()),
            "phi": (transformers.PhiConfig(**TEXT), words()),
            "cohere": (transformers.CohereConfig(**TEXT, pad_token_id=0), words()),
        }
        for name, (config, tokenizer) in texts.items():
            save_checkpoint(folder / name, AutoModelForCausalLM.from_config(config), tokenizer)
        save_checkpoint(
            folder / "siglip",
            transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION)),
            SiglipImageProcessorPil(size={"height": 32, "width": 32}),
        )
        # Published ones have position encodings for larger images than their processor makes.
        save_checkpoint(
            folder / "dinov2",
            transformers.Dinov2Model(transformers.Dinov2Config(**{**VISION, "image_size": 48})),
            BitImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        )
    tiny_clip(str(folder / "clip"), width=16, num_heads=2, image_size=32, patch_size=8)
    return folder


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 40, 3), np.uint8))


PAIRS = [
    ("llama", "clip"),
    ("smollm", "siglip"),
    ("qwen2", "dinov2"),
    ("smollm", "tiny"),
]


@pytest.mark.parametrize(("text", "tower"), PAIRS)
def test_text_as_the_language_model_says_it_and_images_that_are_seen(
    parts, tiny, tmp_path, text, tower
):
    place = tiny if tower == "tiny" else str(parts / tower)
    assemble(str(tmp_path / "made"), str(parts / text), place)
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "made").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "made")
    alone = AutoModelForCausalLM.from_pretrained(parts / text).eval()
    ids = processor.tokenizer("what is red?", return_tensors="pt").input_ids
    known = alone.config.vocab_size
    with torch.no_grad():
        assert torch.allclose(
            model(input_ids=ids).logits[..., :known], alone(input_ids=ids).logits, atol=1e-5
        )
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "red?"}]}]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    logits = []
    for seed in (0, 1):
        inputs = processor(text=prompt, images=picture(seed), return_tensors="pt")
        tokens = int((inputs.input_ids == model.config.image_token_id).sum())
        assert tokens == model.config.image_seq_length
        assert tokens == {"tiny": 4}.get(tower, 16)
        with torch.no_grad():
            logits.append(model(**inputs).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-4
    answer = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, -4:]
    assert answer.max() < len(words())


def test_answers_are_labeled_and_end(parts, tmp_path):
    for text in ("llama", "qwen2"):
        assemble(str(tmp_path / text), str(parts / text), str(parts / "clip"))
        encoder = Encoder(load_processor(str(tmp_path / text)))
        turns = ("<image>\nis it red?", "no", "blue?", "yes")
        roles = ("user", "assistant") * 2
        record = Record("r", ("a.png",), tuple(map(Turn, roles, turns)))
        encoding = encoder.encode(record, [encoder.encode_image(picture(0))])
        labeled = encoding.input_ids[encoding.labels != -100]
        end = encoder.tokenizer.eos_token
        assert encoder.tokenizer.decode(labeled).replace(" ", "") == f"no{end}yes{end}"
        assert encoder.tokenizer.pad_token_id != encoder.tokenizer.eos_token_id
        assert encoding.image_mask.sum() == 16


def test_alignment_trains_the_projector_alone(parts, tmp_path, llava, command):
    made = tmp_path / "made"
    words = ("--text_model", parts / "llama", "--vision_tower", parts / "clip")
    assert command("assemble", "--output", made, *words, "--dtype=float32")[0] == 0
    shown, said = tmp_path / "shown.json", tmp_path / "said.json"
    items = json.loads(llava.read_text())
    shown.write_text(json.dumps([item for item in items if "image" in item]))
    said.write_text(json.dumps([item for item in items if "image" not in item]))
    before = LlavaForConditionalGeneration.from_pretrained(made).state_dict()
    projector = {name for name in before if "multi_modal_projector" in name}
    for data, expected in ((shown, projector), (said, set())):  # text alone teaches it nothing
        run = tmp_path / data.stem
        status, _, error = command(
            *("fit", "--config", "models/align", "--config", "data/llava"),
            *("--data.train.path", data, "--data.train.image_folder", llava.parent),
            *("--data.num_workers=0", "--trainer.max_steps=2", "--trainer.accelerator=cpu"),
            *("--trainer.default_root_dir", run, "--trainer.logger=false"),
            *("--model.pretrained", made),
        )
        assert status == 0, error
        after = LlavaForConditionalGeneration.from_pretrained(run / "model").state_dict()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == expected


def test_the_same_from_the_same_seed(parts, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assemble(str(tmp_path / name), str(parts / "smollm"), str(parts / "clip"), seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_options_reach_the_model(parts, tmp_path):
    (tmp_path / "chat.jinja").write_text(CHATML.replace("message['content']", "'<image>' + 'x'"))
    assemble(
        str(tmp_path / "made"),
        str(parts / "smollm"),
        str(parts / "clip"),
        projector_activation="linear",
        vision_feature_layer=-1,
        vision_feature_strategy="full",
        pad_images=True,
        dtype="bfloat16",
    )
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "made", dtype="auto")
    assert model.dtype == torch.bfloat16
    assert model.config.projector_hidden_act == "linear"
    assert model.config.vision_feature_layer == -1
    processor = load_processor(str(tmp_path / "made"))
    tall = Image.new("RGB", (20, 40), (255, 0, 0))
    inputs = processor(text="<image>", images=tall, return_tensors="pt")
    assert (inputs.input_ids == model.config.image_token_id).sum() == 17  # with the class token
    side, middle = inputs.pixel_values[0, 0, 16, [1, 16]]
    assert side < 0.2 < middle  # padded with the mean, and not cropped


def test_what_can_not_be_used_is_named(parts, tmp_path, monkeypatch):
    def refused(text="llama", tower="clip", **options):
        with pytest.raises(ModelError) as error:
            assemble(str(tmp_path / "made"), str(parts / text), str(parts / tower), **options)
        assert not (tmp_path / "made").exists()
        return str(error.value)

    assert "a gpt2 can't be the text model" in refused("gpt2")
    assert "phi: its head has a bias" in refused("phi")
    assert "does more with its logits" in refused("cohere")
    assert "no usable vision tower" in refused(tower="qwen2")
    assert "no language model" in refused("clip")
    assert "no class token" in refused(tower="siglip", vision_feature_strategy="default")
    assert "clip has 2 layers" in refused(vision_feature_layer=-9)
    assert "projector_activation: 'gleu'" in refused(projector_activation="gleu")
    assert "chat_template: " in refused(chat_template=str(tmp_path / "none.jinja"))
    (tmp_path / "plain.jinja").write_text(CHATML)
    assert "takes text alone" in refused(chat_template=str(tmp_path / "plain.jinja"))
    (parts / "model.gguf").write_bytes(b"")
    monkeypatch.setattr(language_model, "is_gguf_available", lambda: False)
    assert "pip install 'coincide_pl[gguf]'" in refused("model.gguf")


def test_a_gguf_file_is_the_model_that_it_was_made_of(parts, tmp_path):
    gguf = pytest.importorskip("gguf")
    alone = AutoModelForCausalLM.from_pretrained(parts / "smollm").eval()
    write_gguf(gguf, tmp_path / "small.gguf", alone, words())
    assemble(str(tmp_path / "made"), str(tmp_path / "small.gguf"), str(parts / "clip"))
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "made").eval()
    tokenizer = load_processor(str(tmp_path / "made")).tokenizer
    ids = words()("what is red?", return_tensors="pt").input_ids
    assert tokenizer("what is red?").input_ids == ids[0].tolist()
    with torch.no_grad():
        ours, theirs = model(input_ids=ids).logits[..., :320], alone(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


def write_gguf(gguf, path, model, tokenizer):
    """A Llama as llama.cpp has it, with the halves of rotated heads interleaved."""
    config, state = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    ids = {id: token for token, id in tokenizer.get_vocab().items()}
    control = tokenizer.added_tokens_decoder
    count = config.vocab_size
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([ids.get(i, f"<unused{i}>") for i in range(count)])
    writer.add_token_types([3 if i in control else 1 for i in range(count)])
    writer.add_token_merges([" ".join(pair) for pair in backend["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(CHATML)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    for layer in range(config.num_hidden_layers):
        for theirs, ours in names.items():
            value = state[f"model.layers.{layer}.{theirs}.weight"].numpy()
            if ours in ("attn_q", "attn_k"):
                heads = len(value) // config.head_dim
                value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2)
                value = np.ascontiguousarray(value.reshape(-1, value.shape[-1]))
            writer.add_tensor(f"blk.{layer}.{ours}.weight", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
