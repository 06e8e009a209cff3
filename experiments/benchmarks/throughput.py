"""How fast the reference model reads and the target learns, against plain ways to do the same.

`reference` compares `coincide predict`'s pass with a loop that goes as the authors' extraction
does: eight samples in file order, each with its own image, padded to the longest, whole layers up
to the last one asked for. `finetune` compares LoRA finetuning by `fit` with transformers' Trainer:
same weights, data, batch size, optimizer and worker processes. Weights are random, images and
questions those of easy-VQA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from jsonargparse import auto_cli
from shapes import SHAPES, DType, build, device, matrix_rate, now
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer as HuggingFaceTrainer
from transformers import TrainerCallback, TrainingArguments

from coincide_pl.command.quiet import quiet
from coincide_pl.command.trainer import Trainer
from coincide_pl.data.batches import Size, plan_in_order
from coincide_pl.data.collation import EncodedBatches, collate
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.images import open_image
from coincide_pl.data.lengths import expected_lengths
from coincide_pl.data.readers import EasyVQA
from coincide_pl.datamodule import InstructionData
from coincide_pl.models import LoRA, ReferenceModule, TargetModule
from coincide_pl.models.images import model_inputs
from coincide_pl.models.lora import add_lora
from coincide_pl.models.parts import decoder_layers
from coincide_pl.reporting.tables import Table
from coincide_pl.signals.activations import activations

ROUNDS = 3


class Plain(Dataset):
    """One sample at a time: its own image opened, resized and encoded each time."""

    def __init__(self, records: Any, encoder: Encoder) -> None:
        self.records, self.encoder = records, encoder

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int) -> Any:
        record = self.records[row]
        images = [
            self.encoder.encode_image(open_image(self.records.image_root, path))
            for path in record.images
        ]
        return row, record, images, self.encoder.encode(record, images)

    def together(self, samples: list[Any]) -> Any:
        """A batch, with as many images as marks."""
        images = {f"{row}/{i}": im for row, _, own, _ in samples for i, im in enumerate(own)}
        return collate(
            [row for row, _, _, _ in samples],
            [record for _, record, _, _ in samples],
            [encoding for _, _, _, encoding in samples],
            images,
            list(images),
            self.encoder.tokenizer.pad_token_id,
            False,
        )


class _Enough(Exception):
    """The last layer that was asked for has run."""


def plain_pass(module: ReferenceModule, batch: Any) -> torch.Tensor:
    """Whole layers one after another, up to the last one asked for."""
    outputs: dict[int, torch.Tensor] = {}
    model: Any = module.model

    def keep(number: int) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: torch.Tensor) -> None:
            outputs[number] = output

        return hook

    def stop(*_: Any) -> None:
        raise _Enough

    readings = module.forward_pass.readings
    hooks = [r.module.register_forward_hook(keep(i)) for i, r in enumerate(readings.values())]
    deepest = max(place.layer for place in readings)
    hooks.append(decoder_layers(model)[deepest].register_forward_hook(stop))
    try:
        with torch.no_grad():
            model(**model_inputs(model, batch), use_cache=False)
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return activations(list(outputs.values()), batch.image_mask, batch.text_mask).cpu()


def moved(batches: Iterator[Any]) -> Iterator[Any]:
    """Batches on the device."""
    for batch in batches:
        for name, value in vars(batch).items():
            if isinstance(value, torch.Tensor):
                setattr(batch, name, value.to(device(), non_blocking=True))
        batch.image_inputs = {
            name: value.to(device(), non_blocking=True)
            if not value.is_floating_point()
            else value.to(device(), DTYPE, non_blocking=True)
            for name, value in batch.image_inputs.items()
        }
        yield batch


DTYPE = torch.float32


def reference(
    folder: str = "runs/benchmarks/throughput",
    shape: str = "tiny",
    dtype: DType = "float32",
    num_samples: int = 4000,
    max_tokens: int = 16384,
    num_workers: int = 0,
    share: bool = True,
) -> None:
    """Samples a second of the reference pass, against the plain loop.

    Args:
        folder: for checkpoints and caches.
        shape: of the model.
        dtype: of the weights.
        num_samples: of easy-VQA's 38,575 training questions, in file order.
        max_tokens: tokens of a batch.
        num_workers: processes that read and encode, in both.
        share: run a beginning that samples share once, in ours.
    """
    global DTYPE
    DTYPE = getattr(torch, dtype)
    quiet()
    sizes = SHAPES[shape]
    checkpoint = build(sizes, Path(folder) / f"{shape}-{dtype}", dtype)
    module = ReferenceModule(checkpoint, list(sizes.layers), dtype=dtype)
    module.configure_model()
    module.to(device())
    records = EasyVQA().records(Path(folder) / "cache")
    encoder = Encoder(module.processor)

    plan = plan_in_order(
        expected_lengths(records, encoder, encoder.max_length),
        records.image_codes,
        Size(rows=1, tokens=max_tokens),
        np.arange(num_samples),
    )
    batches = EncodedBatches(records, encoder)

    def ours() -> Iterator[Any]:
        loader = DataLoader(batches, batch_size=None, sampler=plan, num_workers=num_workers)
        for batch in moved(iter(loader)):
            batch.prefix = batch.prefix if share else None
            yield batch

    plain = Plain(records, encoder)

    def theirs(rows: int) -> Iterator[Any]:
        order = np.arange(rows)
        loader = DataLoader(
            plain,
            batch_size=8,
            sampler=order.tolist(),
            collate_fn=plain.together,
            num_workers=num_workers,
        )
        return moved(iter(loader))

    few = min(num_samples, 400)
    first = torch.cat([plain_pass(module, batch) for batch in theirs(64)])
    rows: dict[int, torch.Tensor] = {}
    mine = other = 0.0
    for _ in range(ROUNDS):  # in turns, the best of each: other work on the machine hits both
        begin = now()
        for batch in ours():
            vectors = module.predict_step(batch)["activations"].cpu()
            rows.update(zip(batch.rows.tolist(), vectors, strict=True))
        mine = max(mine, num_samples / (now() - begin))
        begin = now()
        for batch in theirs(few):
            plain_pass(module, batch)
        other = max(other, few / (now() - begin))
    apart = max(float((rows[i].float() - first[i].float()).abs().max()) for i in range(len(first)))
    one = next(ours())
    with FlopCounterMode(display=False) as counter:
        module.predict_step(one)
    work = counter.get_total_flops() / len(one.rows)
    step = 0.0
    for _ in range(2 * ROUNDS):
        begin = now()
        module.predict_step(one)
        step = max(step, len(one.rows) / (now() - begin))
    rate = matrix_rate(dtype)
    table = Table(
        f"Reference pass: {shape}, {dtype}, {device().type}",
        ["pass", "samples/s", "ratio", "share of the matrix rate"],
        [
            ["plain loop", f"{other:.1f}", "1.0", "-"],
            ["ours", f"{mine:.1f}", f"{mine / other:.1f}", f"{mine * work / rate:.1%}"],
            ["ours, the model alone", f"{step:.1f}", "-", f"{step * work / rate:.1%}"],
        ],
    )
    print(table.markdown())
    print(
        f"{work / 1e9:.2f} GFLOP a sample; matrix rate {rate / 1e12:.2f} TFLOPS; "
        f"largest difference of an activation {apart:.1e}"
    )


class Clock(lightning.Callback):
    """When each step of a training ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(now())

    def seconds(self, skip: int) -> float:
        """Of the steps after the first few, as many times their median."""
        steps = np.diff(self.times[skip - 1 :])
        return float(np.median(steps)) * len(steps)


class TheirClock(TrainerCallback):
    """The same, for transformers' Trainer."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.clock.times.append(now())


def finetune(
    folder: str = "runs/benchmarks/throughput",
    shape: str = "tiny",
    dtype: DType = "float32",
    steps: int = 60,
    batch_size: int = 16,
    num_workers: int = 0,
    rank: int = 16,
    gradient_checkpointing: bool = False,
    compile_layers: bool = False,
) -> None:
    """Tokens a second of LoRA finetuning, against transformers' Trainer.

    Args:
        folder: for checkpoints and caches.
        shape: of the model.
        dtype: of the weights.
        steps: of each.
        batch_size: conversations a step, in both.
        num_workers: processes that read and encode, in both.
        rank: of the adapters.
        gradient_checkpointing: in both.
        compile_layers: `torch.compile`, in ours.
    """
    quiet()
    sizes = SHAPES[shape]
    checkpoint = build(sizes, Path(folder) / f"{shape}-{dtype}", dtype)
    lora = LoRA(rank=rank, alpha=2 * rank, dropout=0.0)
    options: dict[str, Any] = {
        "freeze": ["vision_tower"],
        "lora": lora,
        "dtype": dtype,
        "gradient_checkpointing": gradient_checkpointing,
    }
    skip = max(2, steps // 6)

    ours = TargetModule(checkpoint, compile_layers=compile_layers, **options)
    data = InstructionData(
        EasyVQA(),
        batch_size=batch_size,
        num_workers=num_workers,
        cache_dir=str(Path(folder) / "cache"),
    )
    clock, counted = Clock(), Counted()
    Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[clock, counted],
        use_distributed_sampler=False,
        precision="bf16-true" if dtype == "bfloat16" else "32-true",
    ).fit(ours, data)
    mine = sum(counted.tokens[skip:]) / clock.seconds(skip)

    again = TargetModule(checkpoint, **{**options, "lora": None})
    again.configure_model()
    model: Any = again.model
    add_lora(model, lora)
    encoder = Encoder(again.processor)
    plain = Plain(EasyVQA().records(Path(folder) / "cache"), encoder)
    tokens: list[int] = []

    def together(samples: list[Any]) -> dict[str, torch.Tensor]:
        batch = plain.together(samples)
        tokens.append(int(batch.attention_mask.sum()))
        inputs = model_inputs(model, batch)
        pixels = inputs["pixel_values"].to(getattr(torch, dtype))
        return {**inputs, "pixel_values": pixels, "labels": batch.labels}

    clock = Clock()
    trainer = HuggingFaceTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            dataloader_num_workers=num_workers,
            remove_unused_columns=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            learning_rate=1e-3,
            gradient_checkpointing=gradient_checkpointing,
        ),
        data_collator=together,
        train_dataset=plain,
        callbacks=[TheirClock(clock)],
    )
    trainer.train()
    each = sum(tokens[:steps]) / steps if num_workers == 0 else counted.mean()
    other = each * (steps - skip) / clock.seconds(skip)
    table = Table(
        f"LoRA finetuning: {shape}, {dtype}, {device().type}",
        ["trainer", "tokens/s", "ratio"],
        [
            ["transformers' Trainer", f"{other:,.0f}", "1.0"],
            ["coincide fit", f"{mine:,.0f}", f"{mine / other:.2f}"],
        ],
    )
    print(table.markdown())
    peak = matrix_rate(dtype)
    print(f"matrix rate {peak / 1e12:.2f} TFLOPS; {counted.share(mine, peak, ours)}")


class Counted(lightning.Callback):
    """Real tokens of each step."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, *args: Any) -> None:
        self.tokens.append(int(batch.attention_mask.sum()))
        self.batch = batch

    def mean(self) -> float:
        """Tokens of a step."""
        return float(np.mean(self.tokens))

    def share(self, rate: float, peak: float, module: TargetModule) -> str:
        """The operations of a step, forward and backward, against what the machine can do."""
        with FlopCounterMode(display=False) as counter:
            torch.nn.functional.cross_entropy(*module(self.batch)).backward()
        work = counter.get_total_flops() / int(self.batch.attention_mask.sum())
        return f"{work / 1e6:.1f} MFLOP a token; {rate * work / peak:.1%} of the matrix rate"


if __name__ == "__main__":
    auto_cli([reference, finetune], as_positional=False)
