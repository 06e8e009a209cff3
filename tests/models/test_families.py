"""Lost if these fail: a family of models as reference or target, with all that is done with one."""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES, LAYERS, write
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import IGNORE, Encoder
from coincide_pl.data.record import Record, Turn
from coincide_pl.data.records import Records
from coincide_pl.errors import ModelError
from coincide_pl.models import LoRA, ReferenceModule, TargetModule
from coincide_pl.models.export import export_model
from coincide_pl.models.loading import load_model, quietly
from coincide_pl.models.processors import load_processor
from coincide_pl.models.shared_prefix import shares

RECORDS = [
    Record("a", ("0.png",), (Turn("user", "<image>\nwhat is it?"), Turn("assistant", "red"))),
    Record("b", ("0.png",), (Turn("user", "is it big?\n<image>"), Turn("assistant", "no"))),
    Record("c", ("1.png",), (Turn("user", "<image>"), Turn("assistant", "a blue circle"))),
    Record(
        "d",
        ("2.png",),
        (
            Turn("system", "be brief"),
            Turn("user", "<image>\nred?"),
            Turn("assistant", "yes"),
            Turn("user", "and big?"),
            Turn("assistant", "no"),
        ),
    ),
    Record("e", (), (Turn("user", "how are you?"), Turn("assistant", "fine, thanks"))),
    Record("g", ("0.png",), (Turn("user", "<image>\nis it big, too?"), Turn("assistant", "no"))),
    Record("f", ("1.png", "0.png"), (Turn("user", "<image> or <image>"), Turn("assistant", "one"))),
]
ROWS = list(range(7))
ONE_IMAGE = [0, 1, 2, 3, 5]

BEGIN_ONCE = {"LLaVA", "LLaVA-OneVision", "SmolVLM", "Idefics3", "InternVL"}
"""Families whose shared beginnings run once."""


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    random = np.random.default_rng(0)
    for name, size in (("0.png", (40, 60, 3)), ("1.png", (70, 33, 3)), ("2.png", (24, 24, 3))):
        Image.fromarray(random.integers(0, 255, size, np.uint8)).save(folder / name)
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    checkpoint = write(request.param, folder / "model")
    logger.setLevel(level)
    records = Records.write(folder / "r.arrow", RECORDS, image_root=folder)
    return request.param, checkpoint, records


def batches(family, prompts=False):
    _, checkpoint, records = family
    return EncodedBatches(records, Encoder(load_processor(checkpoint)), prompts)


def alone(family, row):
    """One conversation, by the processor's own template, tokens and pixels."""
    _, checkpoint, records = family
    processor = load_processor(checkpoint)
    messages = []
    for turn in RECORDS[row].turns:
        content = []
        for i, text in enumerate(turn.text.split("<image>")):
            text = text.removeprefix("\n") if i else text.removesuffix("\n")
            content += [{"type": "image"}] if i else []
            content += [{"type": "text", "text": text}] if text else []
        messages.append({"role": turn.role, "content": content})
    text = processor.tokenizer.apply_chat_template(
        messages, chat_template=processor.chat_template, tokenize=False
    )
    images = [Image.open(records.image_root / image) for image in RECORDS[row].images]
    return processor(
        text=[text],
        images=[images] if images else None,
        return_tensors="pt",
        add_special_tokens=False,
    )


def rows_of(family):
    """LLaVA-OneVision's processor tiles images only where they are alone; here all are tiled."""
    return ROWS[:-1] if family[0] == "LLaVA-OneVision" else ROWS


def test_tokens_are_the_processors_own(family):
    for row in rows_of(family):
        batch, own = batches(family)[[row]], alone(family, row)
        assert batch.input_ids.tolist() == own["input_ids"].tolist()
        tiled = batch.num_images > 1 and "pixel_attention_mask" in own  # filled up in another order
        for name, value in () if tiled else batch.image_inputs.items():
            assert torch.equal(value, own[name].reshape(value.shape))


def test_activations_equal_hooks(family):
    layers = [2, 0]
    module = ReferenceModule(family[1], layers)
    module.configure_model()
    ours = module.predict_step(batches(family)[ROWS])["activations"]
    batch = batches(family)[ONE_IMAGE]  # 0 and 5 begin alike, and so run their beginning once
    assert len(batch.prefix_lengths) < len(ONE_IMAGE)
    assert shares(module.model, batch) == (family[0] in BEGIN_ONCE)
    shared = dict(zip(ONE_IMAGE, module.predict_step(batch)["activations"], strict=True))
    model = load_model(family[1]).eval()
    blocks = model.get_decoder().layers
    for row in rows_of(family):
        batch, kept = batches(family)[[row]], {}
        hooks = [
            blocks[i].self_attn.o_proj.register_forward_hook(
                lambda m, a, o, i=i, kept=kept: kept.update({i: o[0]})
            )
            for i in layers
        ]
        with torch.no_grad():
            model(**alone(family, row))
        for hook in hooks:
            hook.remove()
        vector = []
        for i in layers:
            for mask in (batch.image_mask[0], batch.text_mask[0]):
                mean = kept[i][mask].mean(0).tanh() if mask.any() else torch.zeros(32)
                vector.append(mean / mean.norm().clamp(min=1e-12))
        expected = torch.cat(vector) / math.sqrt(2 * len(layers))
        torch.testing.assert_close(ours[row].float(), expected, atol=2e-4, rtol=0)
        if row in shared:
            torch.testing.assert_close(shared[row].float(), expected, atol=2e-4, rtol=0)


def trained(family, **options):
    """A module after two steps, in evaluation mode, and the losses."""
    module = TargetModule(family[1], freeze=["vision_tower"], **options)
    module.configure_model()
    frozen = {n: p.clone() for n, p in module.model.named_parameters() if not p.requires_grad}
    assert any("vis" in name for name in frozen)
    optimizer = torch.optim.AdamW(module.parameter_groups(), lr=1e-2)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        logits, labels = module(batches(family)[ROWS])
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    for name, parameter in module.model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name])
    return module.eval(), losses


def logits_alone(model, family):
    with torch.no_grad():
        return [model(**alone(family, row)).logits[0] for row in rows_of(family)]


@pytest.mark.parametrize("lora", [None, LoRA(rank=4, alpha=8, dropout=0.0)], ids=["full", "lora"])
def test_finetuning_and_export(family, lora, tmp_path):
    module, losses = trained(family, lora=lora, learning_rates={"projector": 1e-3})
    assert losses[-1] < losses[0]
    plain = load_model(family[1]).eval()
    labels = [batches(family)[[row]].labels[0, 1:] for row in rows_of(family)]
    tokens = [
        torch.nn.functional.cross_entropy(
            logits[:-1][label != IGNORE], label[label != IGNORE], reduction="none"
        )
        for logits, label in zip(logits_alone(plain, family), labels, strict=True)
    ]
    if len(tokens) == len(ROWS):
        assert losses[0] == pytest.approx(float(torch.cat(tokens).mean()), abs=1e-4)
    with torch.no_grad():
        before, _ = module(batches(family)[ROWS])
    export_model(module, tmp_path / "out", form="both" if lora else "model")
    assert (tmp_path / "out" / "video_preprocessor_config.json").exists() == (
        Path(family[1]) / "video_preprocessor_config.json"
    ).exists()
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()
    assert type(model) is type(plain)
    again = TargetModule(str(tmp_path / "out"))
    again.configure_model()
    with torch.no_grad():
        after, _ = again.eval()(batches(family)[ROWS])
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    load_processor(str(tmp_path / "out"))
    if lora:
        with quietly():
            adapted = PeftModel.from_pretrained(plain, tmp_path / "out/adapters")
        for mine, theirs in zip(
            logits_alone(model, family), logits_alone(adapted.eval(), family), strict=True
        ):
            torch.testing.assert_close(theirs, mine, atol=1e-4, rtol=1e-4)


def test_answers_equal_generate(family):
    module = TargetModule(family[1], max_new_tokens=6)
    module.configure_model()
    module.eval()
    answers = module.test_step(batches(family, prompts=True)[ROWS], 0)["answers"]
    model = load_model(family[1]).eval()
    for row in rows_of(family):
        prompt = batches(family, prompts=True)[[row]]
        own = dict(alone(family, row))
        length = prompt.input_ids.shape[1]
        for name in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"):
            if name in own:
                own[name] = own[name][:, :length]
        assert own["input_ids"].tolist() == prompt.input_ids.tolist()
        tokens = model.generate(**own, do_sample=False, max_new_tokens=6)[0, length:]
        expected = module.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        assert answers[row] == expected.strip()


def test_layers_can_be_named_by_hand(family):
    module = ReferenceModule(family[1], [0], parts={"decoder_layers": "nowhere"})
    with pytest.raises(Exception, match="nowhere"):
        module.configure_model()
    model = load_model(family[1])
    path = next(n for n, m in model.named_modules() if m is model.get_decoder().layers)
    parts = {"decoder_layers": path, "attention_output": "self_attn.o_proj"}
    module = ReferenceModule(family[1], [LAYERS - 1], parts=parts)
    module.configure_model()
    assert module.predict_step(batches(family)[[0]])["activations"].shape == (1, 64)


def test_the_image_token_can_be_named_by_hand(family):
    processor = load_processor(family[1])
    known = Encoder(processor)
    mark = known.template.image_mark
    for name in ("image_token", "boi_token"):
        if hasattr(processor, name):
            setattr(processor, name, None)
    with pytest.raises(ModelError, match=r"name it with the option data.image_token"):
        Encoder(processor)
    assert Encoder(processor, image_token=mark).template.image_mark == mark
