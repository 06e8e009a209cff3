"""Lost if these fail: the same selection on a GPU, and training there. Run with `pytest -m gpu`."""

import numpy as np
import pytest

from coincide_pl.selection import Coincide, Pool, Selection
from coincide_pl.signals import SignalsStore

pytestmark = pytest.mark.gpu
GPU = ("--trainer.accelerator=gpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false")


@pytest.mark.parametrize("clustering", ["exact", "projected", "two_level"])
def test_the_same_selection_byte_for_byte(clustering, tmp_path):
    random = np.random.default_rng(0)
    centers = random.normal(size=(40, 128))
    rows = centers[random.integers(0, 40, 3000)] + 0.5 * random.normal(size=(3000, 128))
    features = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    written = []
    for device in ("cpu", "cuda"):
        signals = {"activations": features}
        pool = Pool(range(3000), signals, {"signals": "s"}, 2, device=device)
        selector = Coincide(40, clustering=clustering, projection=64)
        selector.select(pool, 600).save(tmp_path / device)
        written.append((tmp_path / device).read_bytes())
    assert written[0] == written[1]


def test_the_whole_path_in_mixed_precision(command, tiny, llava, tmp_path):
    data = (
        *("--data=InstructionData", "--data.train=LlavaJson", f"--data.train.path={llava}"),
        *(f"--data.cache_dir={tmp_path}/cache", "--data.batch_size=8", "--data.max_length=512"),
    )
    rows = {}
    for device, words in (("cpu", ("--trainer.accelerator=cpu", GPU[2])), ("gpu", GPU)):
        status, _, message = command(
            *("predict", "--model=ReferenceModule", f"--model.pretrained={tiny}", *data, *words),
            *("--model.layers=[0,1]", f"--data.signals={tmp_path}/{device}"),
            f"--trainer.default_root_dir={tmp_path}/{device}",
        )
        assert status == 0, message
        rows[device] = np.asarray(SignalsStore(tmp_path / device)["activations"], np.float32)
    np.testing.assert_allclose(rows["gpu"], rows["cpu"], atol=2e-3)
    run = tmp_path / "run"
    status, _, message = command(
        *("fit", "--model=TargetModule", f"--model.pretrained={tiny}", *data, *GPU),
        *("--data.selector=Coincide", "--data.selector.num_clusters=6", "--data.fraction=0.5"),
        *(f"--data.signals={tmp_path}/gpu", "--trainer.precision=bf16-mixed"),
        *("--trainer.max_epochs=1", f"--trainer.default_root_dir={run}"),
    )
    assert status == 0, message
    assert len(Selection.load(run / "selection.safetensors").indices) == 30
    assert (run / "model/config.json").is_file()
