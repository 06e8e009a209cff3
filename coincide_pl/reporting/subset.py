"""The verb `subset`: a selection as data that any trainer can read."""

from __future__ import annotations

import logging
from contextlib import chdir
from pathlib import Path

from coincide_pl.data.readers import Mix
from coincide_pl.errors import FileError
from coincide_pl.reporting import forms
from coincide_pl.reporting.forms import Form
from coincide_pl.reporting.origin import Origin
from coincide_pl.selection import Selection

log = logging.getLogger(__name__)


def subset(
    selection: str | Selection,
    output: str,
    run_config: str | None = None,
    form: Form = "own",
    check: bool = False,
) -> None:
    """Write the selected records in the data set's own format, or in another, for another trainer.

    They stand in the order of picking, each as it is in its file, unknown keys too; image paths
    stay relative to the same image folder. No image is copied, but for those that stand in the
    file itself.

    Args:
        selection: the selection file, the run's directory that it lies in, or a selection that was
            read from its file.
        output: the file to write; for a data set in a folder, the folder. It must not be the data
            set's own.
        run_config: config of the run, for the data (default: `fit.yaml` or `select.yaml` beside the
            selection).
        form: what is written: `own`, the data set's own format (of shards, a list of their
            members); `rows`, the records' places in the data set's files, as .npy or .json; `ids`,
            as .json or .txt; `llava`, LLaVA's JSON; `llama_factory`, a folder with a data file and
            its `dataset_info.json`; `members`, the keys in each shard; `energon`, a `split.yaml`
            that excludes all others.
        check: whether what was written is read back and compared with the selection.

    Raises:
        CoincideError: the selection, config or data can't be read, or do not belong together.
    """
    target = Path(output).absolute()
    origin = Origin.of(selection, run_config)
    with chdir(origin.folder):
        keep_data(origin, target)
        forms.write(origin, target, form)
        if check:
            forms.check(origin, target, form)
    count = len(origin.selection.indices)
    log.info("%s: %d of %d records", output, count, len(origin.records))
    if isinstance(origin.reader, Mix):
        if form == "own":
            folder = origin.reader.image_folder or origin.reader.path.parent
            place = (origin.folder / Path(folder).expanduser()).resolve()
            log.info("read it with --data.train.image_folder=%s", place)
    elif form == "llava":
        log.info("image paths are relative to %s", origin.records.image_root)
    if check:
        log.info("%s: read back, and as selected", output)


def keep_data(origin: Origin, target: Path) -> None:
    """Refuse to write over the data that were chosen from.

    Args:
        origin: the selection, and its data.
        target: the file or folder to write.

    Raises:
        FileError: the target is one of the data's files, or the folder of one.
    """
    place = target.resolve()
    for file in origin.reader.files():
        if place in (found := file.resolve(), found.parent):
            raise FileError(f"{target}: {file} of the data set is there; name another output")
