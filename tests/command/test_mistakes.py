"""Lost if these fail: one line for what libraries refuse, before an epoch is spent."""

import pytest

ADAM = "--model.optimizer=AdamW"
CASES = [
    (("--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.monitor=val/lss"), "train/loss"),
    (("--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/loss"), "data.val"),
    ((ADAM, "--model.optimizer.lr=-1"), "Invalid learning rate: -1.0"),
    ((ADAM, "--model.optimizer.betas=[2,3]"), "Invalid beta parameter"),
    (("--model.optimizer=SGD", "--model.optimizer.nesterov=true"), "Nesterov momentum requires"),
    (("--trainer.max_epochs=-5",), "trainer: `max_epochs` must be"),
    (("--trainer.max_time=abc",), "DD:HH:MM:SS"),
    (("--trainer.accelerator=tpu",), "trainer: "),
    (("--trainer.devices=0",), "trainer: "),
    (("--trainer.strategy=foo",), "invalid strategy name"),
    (("--trainer.strategy=fsdp",), "requires a GPU"),
    (("--trainer.profiler=foo",), "trainer: When passing string value for the `profiler`"),
    (("--trainer.plugins=foo",), "trainer.plugins: no class is called 'foo'"),
    (("--trainer.limit_train_batches=-1",), "limit_train_batches"),
    (("--trainer.accumulate_grad_batches=0",), "trainer.accumulate_grad_batches: 0 must be"),
    (("--trainer.num_nodes=0",), "`num_nodes` must be a positive integer"),
    (("--trainer.logger=MLFlowLogger",), "trainer.logger: lightning.pytorch.loggers.MLFlowLogger"),
    (("--trainer.callbacks=LearningRateMonitor",), "no logger"),
    (
        ("--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.dirpath=s3://b/x"),
        "trainer.callbacks: lightning.pytorch.callbacks.ModelCheckpoint: Install s3fs",
    ),
    (("--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.save_top_k=3"), "monitor=None"),
    (("--trainer.callbacks=BatchSizeFinder",), "batch_size"),
    (("--model.scheduler=ReduceLROnPlateau",), "Give the full class path"),
    (("--data.batch_size=null",), "batch_size: None must be at least 1"),
    (("--data.train=null",), "data.train: fit needs a reader there"),
    (("--ckpt_path=nowhere.ckpt",), "nowhere.ckpt: no such training checkpoint"),
]


@pytest.fixture
def fit(command, llava, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return command(
            *("fit", "--model=TargetModule", f"--model.pretrained={tiny}"),
            *("--data.train=LlavaJson", f"--data.train.path={llava}", "--data.max_length=256"),
            *("--data.num_workers=0", f"--data.cache_dir={tmp_path}/cache"),
            *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
            *("--trainer.enable_model_summary=false", "--trainer.max_steps=1"),
            *("--trainer.default_root_dir=run", *words),
        )

    return run


@pytest.mark.parametrize(("words", "line"), CASES)
def test_a_mistake_in_a_config_is_one_line(fit, words, line, tmp_path):
    status, _, message = fit(*words)
    errors = [one for one in message.splitlines() if one.startswith("error: ")]
    assert status in (1, 2), message
    assert len(errors) == 1, message
    assert line in errors[0]
    assert "Traceback" not in message
    assert not (tmp_path / "run/model").exists()


@pytest.mark.parametrize(
    "word",
    [
        "--data.max_tokens=None",
        "--data.eval_batch_size=None",
        "--data.image_token=None",
        "--data.selector=None",
        "--model.lora=None",
        "--trainer.limit_train_batches=None",
        "--model.freeze=None",
        "--data.selector={'class_path': 'Coincide', 'init_args': {'num_clusters': 4, "
        "'exclude_above': None}}",
    ],
)
def test_a_sweep_s_null_is_null_everywhere(fit, word):
    status, given, message = fit("--print_config", word)
    assert (status, message) == (0, "")
    option, _, value = word.partition("=")
    expected = fit("--print_config", f"{option}={value}".replace("None", "null"))
    assert given == expected[1]
    assert "None" not in given
