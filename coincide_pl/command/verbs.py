"""The verbs of the command: dispatch, help and the suggestions for a mistyped verb read one table.

It imports nothing but the standard library, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Verb:
    """A word after `coincide`.

    Attributes:
        name: the word.
        about: what it does, to come after its name in the help.
        function: `module:function` of a plain verb, imported only when it runs; empty for a stage
            of Lightning's Trainer, which is a method of that name.
        operands: what stands on the command line without an option's name: parameters of the
            function, with their help.
        reads_runs: whether it reads configs that came with a run, which anybody may have written.
    """

    name: str
    about: str
    function: str = ""
    operands: tuple[tuple[str, str], ...] = ()
    reads_runs: bool = False


VERBS = (
    Verb(
        "check",
        "read every record and open every image; list all that can't be used",
        "coincide_pl.data.check:check",
    ),
    Verb(
        "convert",
        "turn original LLaVA-1.5 and TinyLLaVA checkpoints into Hugging Face's format",
        "coincide_pl.models.conversion.convert:convert",
        (("checkpoint", "directory of an original checkpoint"),),
    ),
    Verb(
        "assemble",
        "make a LLaVA of a language model, a vision tower and a new projector",
        "coincide_pl.models.assembly:assemble",
    ),
    Verb("predict", "let the reference model read the data and write signals"),
    Verb("select", "let a selector read signals and write selection.safetensors"),
    Verb("fit", "finetune the target on the selection, and leave a checkpoint in model/"),
    Verb(
        "export",
        "write what a stopped fit has learned as a Hugging Face checkpoint, or as adapters",
        "coincide_pl.models.export:export",
        (("run", "directory of a fit, or adapters in PEFT's format"),),
        reads_runs=True,
    ),
    Verb("validate", "compute the loss on validation data"),
    Verb("test", "generate answers to questions and score them by task"),
    Verb(
        "compare",
        "write tables and figures of tested runs, over seeds",
        "coincide_pl.reporting.compare:compare",
        (("runs", "directories of runs, or W&B's files of them"),),
        reads_runs=True,
    ),
    Verb(
        "report",
        "write an HTML page of what was selected, with samples",
        "coincide_pl.reporting.report:report",
        (("selection", "selection file, or its run's directory"),),
        reads_runs=True,
    ),
    Verb(
        "subset",
        "write the selected records in the data set's own format, for another trainer",
        "coincide_pl.reporting.subset:subset",
        (("selection", "selection file, or its run's directory"),),
        reads_runs=True,
    ),
    Verb(
        "overlap",
        "say how much several selections share, and where they differ",
        "coincide_pl.reporting.overlap:overlap",
        (("selections", "selection files, or their runs' directories"),),
        reads_runs=True,
    ),
    Verb(
        "configs",
        "list the building blocks of configs, or print one",
        "coincide_pl.command.configs:configs",
        (("block", "name of the one to print"),),
    ),
    Verb(
        "create-tiny-llava",
        "write a tiny LLaVA with random weights, for trials",
        "coincide_pl.models.tiny:tiny_llava",
    ),
    Verb(
        "create-tiny-clip",
        "write a tiny CLIP with random weights, for trials",
        "coincide_pl.models.tiny:tiny_clip",
    ),
)
"""In the order in which a user needs them."""
BY_NAME = {verb.name: verb for verb in VERBS}


def overview() -> str:
    """What `coincide --help` prints."""
    width = max(map(len, BY_NAME))
    lines = [f"  {verb.name:{width}}  {verb.about}" for verb in VERBS]
    return "\n".join(
        [
            "usage: coincide VERB [--config FILE ...] [--option=value ...]",
            "       coincide VERB --help | coincide --help | coincide --version",
            "",
            "Choose the data that matter for finetuning vision-language models. Verbs:",
            "",
            *lines,
            "",
            "`lightning` is the same command. Options of a class: coincide fit --model.help NAME,",
            "coincide fit --data.help InstructionData.",
        ]
    )


def suggestion(word: str) -> str:
    """What to say of a first word that is no verb.

    Args:
        word: as it was typed.
    """
    near = get_close_matches(word, BY_NAME, 3, 0.6)
    known = ", ".join(BY_NAME)
    return (
        f"{word!r} is no verb; did you mean {' or '.join(near)}?"
        if near
        else (f"{word!r} is no verb; known are {known}")
    )
