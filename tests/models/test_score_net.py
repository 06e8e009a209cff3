"""Lost if these fail: a score net that learns which samples the model finds easy."""

import numpy as np
import pytest
import torch
from torch import nn

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.readers import LlavaJson
from coincide_pl.models import SelfFilterModule
from coincide_pl.models.loading import load_model


@pytest.fixture
def module(tiny):
    module = SelfFilterModule(tiny, score_learning_rate=0.5)
    random = np.random.default_rng(0)
    module.embeddings = [random.normal(size=(60, 3)).astype(np.float16) for _ in range(2)]
    module.score_net = nn.Linear(6, 1, bias=False)
    module.configure_model()
    module.log = lambda *_, **__: None  # there is no trainer
    return module


def test_losses_are_weighted_by_the_softmax_of_the_scores(module, tiny, llava, tmp_path):
    data = EncodedBatches(LlavaJson(str(llava)).records(tmp_path / "c"), Encoder(module.processor))
    rows = [0, 1, 6, 7]
    loss = module.training_step(data[rows], 0)
    loss.backward()
    model = load_model(tiny)
    losses = []
    for row in rows:
        one = data[[row]]
        inputs = {"pixel_values": one.image_inputs["pixel_values"][one.image_index]}
        losses.append(model(input_ids=one.input_ids, labels=one.labels, **inputs).loss)
    features = torch.from_numpy(np.concatenate(module.embeddings, 1)[rows]).float()
    weight = module.score_net.weight.detach().clone().requires_grad_()
    expected = ((features @ weight[0]).softmax(0) * torch.stack(losses)).sum()
    torch.testing.assert_close(loss, expected)
    expected.backward()
    torch.testing.assert_close(module.score_net.weight.grad, weight.grad)
    assert weight.grad.abs().max() > 0


def test_difficulty_is_the_negative_score_of_every_record(module):
    features = np.concatenate(module.embeddings, 1).astype(np.float32)
    expected = -features @ module.score_net.weight[0].detach().numpy()
    np.testing.assert_allclose(module.difficulty(), expected, atol=1e-5)


def test_the_net_learns_at_a_rate_of_its_own(module):
    groups = module.parameter_groups()
    assert groups[-1] == {"params": [module.score_net.weight], "lr": 0.5}
    assert "lr" not in groups[0]
