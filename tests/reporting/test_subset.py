"""Lost if these fail: a selection that another trainer can use."""

import json

from coincide_pl.selection import Selection


def test_the_chosen_records_as_they_stand_in_the_file(command, llava, tmp_path):
    items = json.loads(llava.read_text())
    items[3]["note"] = "kept"
    items.insert(0, {"id": "bad", "conversations": []})
    llava.write_text(json.dumps(items))
    run = tmp_path / "run"
    status, _, said = command(
        *("select", "--data=InstructionData", "--data.train=LlavaJson"),
        *(f"--data.train.path={llava}", "--data.train.on_error=skip"),
        *(f"--data.cache_dir={tmp_path}/cache", "--data.selector=Random", "--data.fraction=0.5"),
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={run}"),
    )
    assert status == 0, said
    status, _, said = command("subset", run, f"--output={tmp_path}/chosen.json")
    assert status == 0, said
    whole = llava.read_text()
    for output, form in ((llava, "own"), (llava, "ids"), (llava.parent, "llama_factory")):
        status, _, said = command("subset", run, f"--output={output}", f"--form={form}")
        assert (status, "of the data set is there; name another output" in said) == (1, True)
    assert llava.read_text() == whole
    chosen = Selection.load(run / "selection.safetensors").indices
    assert json.loads((tmp_path / "chosen.json").read_text()) == [items[i + 1] for i in chosen]
    llava.write_text(json.dumps(items[:-1]))
    status, _, said = command("subset", run, f"--output={tmp_path}/chosen.json")
    assert status == 1
    assert "was made from other data" in said
