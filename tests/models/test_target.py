"""Lost if these fail: the loss that is meant, on the weights that are meant, left for others."""

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.readers import LlavaJson
from coincide_pl.errors import ModelError
from coincide_pl.models import CosineWithWarmup, LoRA, TargetModule
from coincide_pl.models.images import model_inputs
from coincide_pl.models.loading import load_model, save_checkpoint
from coincide_pl.models.optimization import parameter_groups
from coincide_pl.models.parts import decoder_layers
from coincide_pl.models.recipe import optimizer_options
from coincide_pl.models.tiny import tiny_llava


@pytest.fixture
def batches(tiny, llava, tmp_path):
    records = LlavaJson(str(llava)).records(tmp_path / "cache")
    module = TargetModule(tiny)
    return EncodedBatches(records, Encoder(module.processor))


def module_with(tiny, **options):
    module = TargetModule(tiny, **options)
    module.configure_model()
    return module


def loss_of(module, batch):
    logits, labels = module(batch)
    return torch.nn.functional.cross_entropy(logits, labels)


@pytest.mark.parametrize("rows", [[0, 10, 20], [0, 1, 6, 7], [5, 11]])
def test_loss_equals_the_models_own(tiny, batches, rows):
    batch = batches[rows]
    pixels = dict(batch.image_inputs)
    if pixels:  # the model's own way has every image once per mark
        pixels = {"pixel_values": pixels["pixel_values"][batch.image_index]}
    expected = load_model(tiny)(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        labels=batch.labels,
        **pixels,
    ).loss
    module = module_with(tiny)
    torch.testing.assert_close(loss_of(module, batch), expected)


def test_generated_answers_equal_the_models_own(tiny, llava, tmp_path, batches):
    prompts = EncodedBatches(batches.records, batches.encoder, prompts=True)
    module = module_with(tiny, max_new_tokens=5)
    module.eval()
    rows = [0, 10, 2, 5]  # 0 and 10 show one image
    answers = module.test_step(prompts[rows], 0)["answers"]
    model = load_model(tiny).eval()
    for row, answer in zip(rows, answers, strict=True):
        one = prompts[[row]]
        tokens = model.generate(**model_inputs(model, one), do_sample=False, max_new_tokens=5)
        new = tokens[0, one.input_ids.shape[1] :]
        expected = module.processor.tokenizer.decode(new, skip_special_tokens=True)
        assert answer == expected.strip()


def test_freezing_by_name(tiny, batches):
    module = module_with(tiny, freeze=["vision_tower", "language_model"])
    loss_of(module, batches[[0, 1]]).backward()
    trained = {name for name, p in module.model.named_parameters() if p.grad is not None}
    assert trained
    assert all("multi_modal_projector" in name for name in trained)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert {name.removeprefix("model.") for name in checkpoint["state_dict"]} == trained
    with pytest.raises(ModelError, match="has no part 'head'"):
        module_with(tiny, freeze=["head"])
    nothing = module_with(tiny, freeze=["vision_tower", "projector", "language_model"])
    with pytest.raises(ModelError, match="nothing is left to train"):
        parameter_groups(nothing.model, {})


def test_the_projector_has_a_rate_of_its_own(tiny):
    module = module_with(tiny)
    rest, projector = parameter_groups(module.model, {"projector": 1e-5})
    assert projector["lr"] == 1e-5
    assert "lr" not in rest
    sizes = sum(p.numel() for group in (rest, projector) for p in group["params"])
    assert sizes == sum(p.numel() for p in module.model.parameters())
    with pytest.raises(ModelError, match="nothing of 'projector' is trained"):
        parameter_groups(module_with(tiny, freeze=["projector"]).model, {"projector": 1e-5})


def test_the_options_of_optimizer_and_schedule_are_known_before_a_step():
    """Or a fit would go on under others, which its checkpoint silently overrules."""
    one = OneCycleLR.__name__
    options = optimizer_options(
        lambda groups: torch.optim.AdamW(groups, lr=0.5, weight_decay=0.25),
        lambda optimizer: OneCycleLR(optimizer, [1.0, 2.0], total_steps=7),
        num_groups=2,
    )
    assert (options["model.optimizer"], options["model.scheduler"]) == ("AdamW", one)
    assert options["model.optimizer.weight_decay"] == 0.25
    assert options["model.scheduler.total_steps"] == 7


def test_cosine_with_warmup():
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}], lr=2.0)
    schedule = CosineWithWarmup(optimizer, warmup_ratio=0.1, min_lr_ratio=0.25)
    schedule.span(100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[55] == pytest.approx(2 * (0.25 + 0.75 * 0.5))
    assert rates[-1] == pytest.approx(0.5, rel=1e-2)
    with pytest.raises(ModelError, match=r"warmup_ratio: 1.5"):
        CosineWithWarmup(optimizer, warmup_ratio=1.5)


def test_lora_trains_adapters_and_folds_them_in(tiny, batches, tmp_path):
    lora = LoRA(rank=4, alpha=8, dropout=0.0)
    module = module_with(tiny, lora=lora, freeze=["vision_tower"])
    names = {name for name, p in module.model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "multi_modal_projector" in name for name in names)
    assert any("lora_" in name for name in names)
    assert any("multi_modal_projector" in name for name in names)
    batch = batches[[0, 1, 2]]
    before = loss_of(module, batch)
    torch.testing.assert_close(before, loss_of(module_with(tiny), batch))  # B begins at zero
    optimizer = torch.optim.AdamW(parameter_groups(module.model, {}), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(module, batch).backward()
        optimizer.step()
    module.eval()
    trained, _ = module(batch)
    assert loss_of(module, batch) < before
    save_checkpoint(tmp_path / "merged", module.merge(), module.processor)
    other = module_with(str(tmp_path / "merged"))
    other.eval()
    logits, _ = other(batch)
    torch.testing.assert_close(logits, trained, atol=1e-4, rtol=1e-4)
    with pytest.raises(ModelError, match=r"lora.rank: 0"):
        module_with(tiny, lora=LoRA(rank=0))
    with pytest.raises(ModelError, match=r"no linear layer of the language model is called 'q'"):
        module_with(tiny, lora=LoRA(target_modules=["q"]))


def test_gradient_checkpointing_changes_no_gradient(tiny, batches):
    gradients = []
    for checkpointing in (False, True):
        module = module_with(tiny, gradient_checkpointing=checkpointing)
        module.train()
        loss_of(module, batches[[0, 1]]).backward()
        gradients.append([p.grad for p in module.parameters() if p.grad is not None])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


# torch looks at the .grad of whatever it traces.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:Guards may run slower")  # torch, of Python 3.13.0
def test_compiled_layers_change_no_loss(tiny, batches, monkeypatch):
    compiled = []

    def plainly(layer):  # traced and run as it is, for no compiler is needed to see that it is used
        compiled.append(layer)
        torch.nn.Module.compile(layer, backend="eager")

    monkeypatch.setattr(LlamaDecoderLayer, "compile", plainly)
    module = module_with(tiny, compile_layers=True)
    assert compiled == list(decoder_layers(module.model))
    for rows in ([0, 1], [0, 1, 2]):
        batch = batches[rows]
        torch.testing.assert_close(loss_of(module, batch), loss_of(module_with(tiny), batch))


def test_the_tiny_model_is_a_checkpoint_like_any_other(tmp_path):
    for hidden in (64, 128):
        tiny_llava(str(tmp_path / "t"), hidden_size=hidden, patch_size=8)
        model = AutoModelForImageTextToText.from_pretrained(tmp_path / "t")
        assert type(model).__name__ == "LlavaForConditionalGeneration"
        assert sum(p.numel() for p in model.parameters()) < 3e6
        processor = AutoProcessor.from_pretrained(tmp_path / "t")
        assert type(processor).__name__ == "LlavaProcessor"
    again = {name: p.clone() for name, p in model.named_parameters()}
    tiny_llava(str(tmp_path / "u"), hidden_size=128, patch_size=8)
    for name, p in AutoModelForImageTextToText.from_pretrained(tmp_path / "u").named_parameters():
        assert torch.equal(p, again[name])
    with pytest.raises(ModelError, match="hidden_size: 30 must be a multiple of 8"):
        tiny_llava(str(tmp_path / "v"), hidden_size=30)
