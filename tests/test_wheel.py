"""Lost if these fail: an installation without a checkout, where blocks are found by their name."""

import os
import shutil
import subprocess
import sys
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (find_spec("pip") and find_spec("setuptools")), reason="nothing here builds a wheel"
)


def pip(*words):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package as it is installed, built from a copy of what belongs to it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("coincide_pl", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", source, source)
    (built,) = source.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_its_blocks(wheel):
    files = {
        str(path.relative_to(ROOT / "coincide_pl"))
        for pattern in ("*.py", "*.j2", "py.typed")
        for path in (ROOT / "coincide_pl").rglob(pattern)
    }
    files |= {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        fields = Parser().parsestr(archive.read(metadata).decode())
    assert names == {f"coincide_pl/{name}" for name in files}
    assert fields["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in fields.get_all("Classifier")
    assert fields.get_all("Project-URL")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs Python in a folder of its own, where the package is the wheel's."""
    site, elsewhere = (tmp_path_factory.mktemp(name) for name in ("site", "elsewhere"))
    pip("install", "--no-deps", "--no-index", f"--target={site}", wheel)

    def run(*words):
        return subprocess.run(
            [sys.executable, *words],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT / "tests")])},
            capture_output=True,
            text=True,
        )

    where = run("-c", "import coincide_pl; print(coincide_pl.__file__)")
    assert Path(where.stdout).is_relative_to(site)
    assert all((site / "bin" / script).is_file() for script in ("coincide", "lightning"))
    return run, elsewhere


def test_the_installed_command_needs_no_checkout(installed):
    run, _ = installed
    listed = run("-m", "coincide_pl", "configs")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "selectors/coincide" in listed.stdout
    version = run("-m", "coincide_pl", "--version")
    assert version.stdout.startswith("coincide_pl 0.1.0 (torch ")


def test_data_of_one_s_own_are_chosen_and_trained_on(installed, models, llava_writer):
    run, folder = installed
    shutil.copytree(models, folder, dirs_exist_ok=True)
    llava_writer(folder / "images", 60).rename(folder / "mix.json")
    done = run("-c", "import readmes; readmes.own_data()")
    assert done.returncode == 0, done.stderr
    assert (folder / "run/selection.safetensors").is_file()
    assert (folder / "run/model/model.safetensors").is_file()
