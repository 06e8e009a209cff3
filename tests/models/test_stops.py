"""Lost if these fail: a finetuned model that stops after its answer."""

import pytest
import torch
from torch.nn import functional

from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.record import Record, Turn
from coincide_pl.data.records import Records
from coincide_pl.models import TargetModule

WITHOUT_END = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] + ' ' }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""As llava-hf's checkpoints have it."""


@pytest.mark.parametrize("template", [None, WITHOUT_END])
def test_a_finetuned_model_stops(tiny, tmp_path, template):
    records = [Record("a", (), (Turn("user", "what is it?"), Turn("assistant", "a red square")))]
    found = Records.write(tmp_path / "r.arrow", records, image_root=tmp_path)
    module = TargetModule(tiny, max_new_tokens=24)
    module.configure_model()
    module.processor.chat_template = template or module.processor.chat_template
    encoder = Encoder(module.processor)
    batch = EncodedBatches(found, encoder)[[0]]
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
    for _ in range(60):
        logits, labels = module(batch)
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    module.eval()
    prompt = EncodedBatches(found, encoder, prompts=True)[[0]]
    assert module.test_step(prompt, 0) == {"answers": ["a red square"]}
