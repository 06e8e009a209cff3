"""READMEs as lists of blocks, and a small shell that runs what is in them."""

import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
OURS = ("coincide", "lightning")
NOT_RUN = "not run: "
SMALL = {
    "--data.selector.num_clusters=10000": "--data.selector.num_clusters=3",
    "--data.fraction=0.2": "--data.fraction=0.5",
}
"""What must be otherwise where there are 60 samples."""
CPU = (
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
    *("--data.cache_dir=cache", "--data.num_workers=0"),
)
OWN_DATA = "Choose from my own LLaVA-format data"


@dataclass(frozen=True)
class Block:
    """A piece of code in a README.

    Attributes:
        line: where it begins.
        language: as its fence says; `sh` where it is indented, `inline` for a command in a text.
        text: what is in it.
        mark: the words of the comment `<!-- ... -->` before it.
        heading: of the section that it stands in.
    """

    line: int
    language: str
    text: str
    mark: str = ""
    heading: str = ""

    @property
    def lines(self):
        """Its commands, without comments and with continued lines put together."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.partition("#")[0].strip():
                yield line


def blocks(readme):
    """The blocks of a README, in order."""
    mark, heading, before = "", "", ""
    for token in MarkdownIt().enable("table").parse(readme.read_text()):
        line = token.map[0] + 1 if token.map else 0
        if before == "heading_open":
            heading = token.content
        before = token.type
        if token.type == "html_block":
            mark = token.content.strip().removeprefix("<!--").removesuffix("-->").strip()
            continue
        if token.type == "code_block":
            yield Block(line, "sh", token.content, mark, heading)
        elif token.type == "fence":
            yield Block(line, token.info.strip(), token.content, mark, heading)
        elif token.type == "inline":
            for child in token.children:
                words = child.content.split()
                if child.type == "code_inline" and len(words) > 2 and Path(words[0]).name in OURS:
                    yield Block(line, "inline", child.content.replace("\n", " "), mark, heading)
        mark = ""


class Shell:
    """Runs commands of this package, and puts values where a text has `$NAME`."""

    def __init__(self, command, small, extra):
        """Takes the command, and what makes its options fit small data.

        Args:
            command: the fixture of this name.
            small: words to be replaced, with their replacements.
            extra: options for the stages of Lightning's Trainer.
        """
        self.command, self.small, self.extra = command, small, extra
        self.values, self.files = {}, {}

    def words(self, line):
        """A line as words: values put in, quotes taken away, files found."""
        for name, value in self.values.items():
            line = line.replace(f"${name}", value)
        words = [self.small.get(word, word) for word in shlex.split(line, comments=True)]
        return [
            found
            for word in words
            for found in ("*" in word and sorted(map(str, Path().glob(word)))) or [word]
        ]

    def run(self, line):
        """Runs a line; one that is no command of ours is an error."""
        words = self.words(line)
        if set_value := re.fullmatch(r"(\w+)=(.*)", words[0]):
            self.values[set_value[1]] = set_value[2]
            return
        assert words[0] in OURS, f"neither run nor marked: {line}"
        stage = words[1] in ("fit", "validate", "test", "predict", "select")
        status, _, said = self.command(*words[1:], *(self.extra if stage else ()))
        assert status == 0, f"{line}\n{said}"

    def parse(self, line):
        """Lets a line's command say how it understands its options."""
        words = [word for word in self.words(line) if "…" not in word]
        names = [Path(word).name for word in words]
        at = next((i for i, name in enumerate(names) if name in OURS), None)
        if at is not None:
            status, out, said = self.command(*words[at + 1 :], "--print_config")
            assert (status, bool(out)) == (0, True), f"{line}\n{said}"
        elif names[0] == "python" and words[1].endswith(".py"):
            status = script(*words[1:], "--print_config")
            assert status == 0, line
        elif names[0] == "make":
            subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, capture_output=True)
        elif names[0] == "sbatch":
            subprocess.run(["bash", "-n", words[1]], cwd=ROOT, check=True)
        else:
            assert names[0] in ("pip", "pytest", "python", "wandb"), f"what is that? {line}"


def own_data():
    """Runs the README's section on data of one's own, with the package that is installed."""
    from coincide_pl.command.main import main

    def command(*words):
        sys.argv = ["coincide", *words]
        try:
            main()
        except SystemExit as end:
            return end.code or 0, "", ""
        return 0, "", ""

    shell = Shell(command, SMALL, CPU)
    for block in blocks(ROOT / "README.md"):
        if block.heading == OWN_DATA and block.language == "sh":
            for line in block.lines:
                shell.run(line)


def script(path, *words):
    """Runs a script of experiments/ in this process; returns its exit status."""
    before = sys.argv, sys.path
    sys.argv, sys.path = [path, *words], [str((ROOT / path).parent), *sys.path]
    try:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv, sys.path = before
    return 0
