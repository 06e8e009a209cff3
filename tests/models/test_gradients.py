"""Lost if these fail: gradients that are each sample's own, and a projection that tells of them."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import CONVERSATIONS
from lightning import Trainer
from PIL import Image
from torch.utils.data import DataLoader

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import IGNORE, Encoder
from coincide_pl.data.records import Records
from coincide_pl.errors import ModelError, SignalsError
from coincide_pl.models import (
    EpochCheckpoints,
    GradientModule,
    LoRA,
    ReferenceModule,
    TargetModule,
)
from coincide_pl.models.parts import decoder_layers
from coincide_pl.models.processors import load_processor
from coincide_pl.models.projection import Projection
from coincide_pl.models.tiny import tiny_llava
from coincide_pl.models.warm_up import WarmUp
from coincide_pl.signals.forward import Forward, GradientRead
from coincide_pl.signals.gradients import AdamGradient, Gradient, GradientNorm

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The conversations, and their two images."""
    folder, random = tmp_path_factory.mktemp("records"), np.random.default_rng(0)
    for name in ("0.png", "1.png"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / name)
    return Records.write(folder / "r.arrow", CONVERSATIONS, image_root=folder)


def loop(model, data, rows):
    """Gradients by each adapter, one sample at a time, through transformers' and peft's API."""
    named = {name: p for name, p in model.named_parameters() if "lora_" in name}
    weights, found = [*named.values()], []
    for row in rows:
        batch = data[[row]]
        pixels = dict(batch.image_inputs)
        if pixels:
            pixels = {"pixel_values": pixels["pixel_values"][batch.image_index]}
        for weight in weights:
            weight.requires_grad_(True).grad = None
        with torch.enable_grad():
            model(input_ids=batch.input_ids, labels=batch.labels, **pixels).loss.backward()
        found.append([weight.grad.flatten().clone() for weight in weights])
    for weight in weights:
        weight.requires_grad_(False).grad = None
    return {name: torch.stack(each) for name, *each in zip(named, *found, strict=True)}


def close(ours, expected):
    """Equal to 1e-4 of the largest."""
    scale = float(expected.abs().max())
    np.testing.assert_allclose(ours, expected, atol=1e-4 * scale, rtol=1e-4)


pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning",
    "ignore::FutureWarning",  # Lightning's, in Python
)


@pytest.fixture(scope="module")
def warmed(tiny, records, tmp_path_factory):
    """The run of a warm-up with LoRA, and Adam's moments as its optimizer held them, by name."""
    run = tmp_path_factory.mktemp("warm")
    module = TargetModule(
        tiny,
        partial(torch.optim.AdamW, lr=1e-2),
        learning_rates={"projector": 1e-3},
        lora=LoRA(4, 8, 0.1),
    )
    trainer = Trainer(
        max_epochs=2,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=run,
        callbacks=[EpochCheckpoints()],
    )
    data = EncodedBatches(records, Encoder(module.processor))
    loader = DataLoader(data, batch_sampler=[[[0, 1]], [[2, 3]]], collate_fn=lambda rows: rows[0])
    trainer.fit(module, loader, loader)
    state = trainer.optimizers[0].state
    moments = {
        name: (state[p]["exp_avg"].flatten(), state[p]["exp_avg_sq"].flatten())
        for name, p in module.model.named_parameters()
        if p in state
    }
    return str(run), moments


@pytest.fixture
def data(tiny, records):
    """Batches of the conversations."""
    return EncodedBatches(records, Encoder(load_processor(tiny)))


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 0], [2], [1, 0]])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_a_loop_with_one_sample_each(
    tiny, warmed, data, rows, checkpointing
):
    run, moments = warmed
    attention = Gradient(100, 3, ATTENTION, "attention")
    signals = [Gradient(64), AdamGradient(64), GradientNorm(), attention]
    module = GradientModule(tiny, run, signals, gradient_checkpointing=checkpointing)
    module.configure_model()
    layers, passes = decoder_layers(module.model.model), []
    for layer in layers:
        layer.mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    module.on_predict_model_eval()  # the trainer does
    ours = module.gradients(data[rows])
    assert len(passes) == (1 + checkpointing) * len(layers)
    every = loop(module.model.model, data, rows)  # [B, n] by name
    names = {id(p): name for name, p in module.model.model.named_parameters()}
    close(ours[GradientRead()], torch.cat([*every.values()], 1).norm(dim=1))
    for signal in (signals[0], signals[1], attention):
        expected = torch.zeros(len(rows), signal.size)
        for number, part in enumerate(module.adapters):
            name = names[id(part.module.weight)]
            values = every[name]
            if signal is attention and not any(f".{target}." in name for target in ATTENTION):
                continue
            if signal.adam:
                m, v = moments[name]
                m, v = 0.9 * m + 0.1 * values, 0.999 * v + 0.001 * values**2
                values = m / (v + 1e-8).sqrt()
            expected += values @ Projection(signal.size, signal.seed)(
                number, torch.eye(values.shape[1])
            )
        close(ours[signal.read], expected)


def test_the_rows_are_directions_and_a_sample_without_an_answer_has_none(tiny, warmed, records):
    signals = ["gradient", "adam_gradient", "gradient_norm"]
    module = GradientModule(tiny, warmed[0], signals)
    module.configure_model()
    batch = EncodedBatches(records, Encoder(module.processor, 12))[[0, 2]]
    assert (batch.labels[0] == IGNORE).all()
    forward = Forward(batch, gradients=module.gradients(batch))
    norm, *directions = [signal.rows(forward) for signal in reversed(module.asked)]
    assert norm[0] == 0
    assert norm[1] > 0
    for rows in directions:
        np.testing.assert_allclose(rows.norm(dim=1), [0, 1], rtol=1e-6)
    nothing = EncodedBatches(records, Encoder(module.processor, 12))[[0]]
    assert all((value == 0).all() for value in module.gradients(nothing).values())


def test_what_can_not_be_asked_for_is_named(tiny, warmed, tmp_path):
    with pytest.raises(ModelError, match=r"a gradient pass does not make el2n: .*models/reference"):
        GradientModule(tiny, warmed[0], ["gradient", "el2n"])
    with pytest.raises(ModelError, match=r"does not make gradient: .*models/gradients"):
        ReferenceModule(tiny, [0], ["gradient"])
    with pytest.raises(ModelError, match="no training checkpoint here; `coincide fit"):
        GradientModule(tiny, str(tmp_path))
    with pytest.raises(ModelError, match=r"no adapter .* on 'q_prj' \(did you mean q_proj"):
        GradientModule(tiny, warmed[0], [Gradient(8, 0, ["q_prj"])]).configure_model()
    with pytest.raises(SignalsError, match="size: 0 must be positive"):
        Gradient(0)
    other = tmp_path / "other"
    tiny_llava(str(other), hidden_size=16, vision_hidden_size=16, image_size=32)
    with pytest.raises(ModelError, match="began with another model"):
        GradientModule(str(other), warmed[0]).configure_model()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": None}, "not a training checkpoint of a fit"),
        ({"recipe.model.lora": "null"}, "of a fit without LoRA"),
        ({"moments": None}, "keeps no moments as Adam does"),
    ],
)
def test_a_checkpoint_that_gradients_can_not_come_from_is_refused(
    tiny, warmed, tmp_path, change, said
):
    kept = torch.load(f"{warmed[0]}/checkpoints/epoch-1.ckpt", weights_only=True)
    for name, value in change.items():
        if name == "recipe":
            del kept["recipe"]
        elif name == "moments":
            for state in kept["optimizer_states"][0]["state"].values():
                state.clear()
        else:
            kept["recipe"]["model.lora"] = value
    path = tmp_path / "changed.ckpt"
    torch.save(kept, path)
    with pytest.raises(ModelError, match=said):
        GradientModule(tiny, str(path), ["adam_gradient"]).configure_model()


def test_checkpoints_know_the_mean_learning_rate_of_their_epoch(tiny, warmed):
    run = Path(warmed[0])
    rates = [
        GradientModule(tiny, str(run / f"checkpoints/epoch-{epoch}.ckpt")).settings["learning_rate"]
        for epoch in (0, 1)
    ]
    expected = [1e-2 * (1 + np.cos(np.pi * np.array(at) / 3)) / 2 for at in ([0, 0], [1, 2])]
    np.testing.assert_allclose(rates, np.mean(expected, 1), rtol=1e-6)
    assert WarmUp(str(run)).path.name == "epoch-1.ckpt"


@given(st.integers(0, 2**31), st.integers(1, 40), st.lists(st.integers(1, 200), min_size=1))
@settings(max_examples=30, deadline=None)
def test_a_projection_is_linear_the_same_each_time_and_alone_or_in_a_batch(seed, size, widths):
    random = np.random.default_rng(seed)
    x = [torch.from_numpy(random.normal(size=(3, n))) for n in widths]
    whole = sum(Projection(size, seed)(number, part) for number, part in enumerate(x))
    again = Projection(size, seed)
    alone = sum(again(number, part[1:2]) for number, part in reversed([*enumerate(x)]))
    torch.testing.assert_close(whole[1:2], alone)
    combined = sum(again(number, (2 * part[0] - part[2])[None]) for number, part in enumerate(x))
    torch.testing.assert_close(combined[0], 2 * whole[0] - whole[2])


@pytest.mark.parametrize("kind", ["normal", "outer products", "one weight"])
def test_a_projection_keeps_inner_products_as_theory_says(kind):
    """Over 800 seeds: the mean is ⟨x, y⟩, and the variance at most that of random signs."""
    size, widths, random = 32, (300, 64, 7), np.random.default_rng(0)
    x, y = ([torch.from_numpy(random.normal(size=(1, n))) for n in widths] for _ in range(2))
    if kind == "outer products":
        x[0], y[0] = (torch.outer(*p.flatten().split((30, 10))[:2]).view(1, -1)
                      for p in (x[0][:, :40], y[0][:, :40]))  # fmt: skip
    if kind == "one weight":
        x[1], x[2], y[1], y[2] = (torch.zeros_like(p) for p in (x[1], x[2], y[1], y[2]))
        y[0] += x[0]
    found = np.array([float(sketch(seed, size, x) @ sketch(seed, size, y)) for seed in range(800)])
    flat = [torch.cat(parts, 1).flatten() for parts in (x, y)]
    exact, squares = (
        float(flat[0] @ flat[1]),
        float(flat[0].square().sum() * flat[1].square().sum()),
    )
    bound = (squares + exact**2) / size
    assert abs(found.mean() - exact) < 5 * (bound / len(found)) ** 0.5
    assert found.var() < 1.2 * bound
    assert found.var() > 0.3 * bound  # else it would not be random


def sketch(seed, size, parts):
    """The projection of some weights' numbers."""
    project = Projection(size, seed)
    return sum(project(number, part) for number, part in enumerate(parts)).flatten()
