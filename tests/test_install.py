"""What the project imports is what its requirements name, and the files for citing and installing fit together."""

import ast
import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

DISTRIBUTION = {"sklearn": "scikit-learn", "PIL": "pillow", "lightly_train": "lightly-train"}
OURS = {path.stem for path in ROOT.glob("*.py")} | {"util", "segmentation", "benchmarks"}


def named(*lists: str) -> dict[str, str]:
    """The requirements of some lists: by name, what versions they ask for."""
    lines = [line for each in lists for line in (ROOT / each).read_text().splitlines() if line and line[0] not in "#-"]
    return {match[1].lower(): match[2] for match in (re.match(r"([\w.-]+)(?:\[.*\])?(.*)", line) for line in lines) if match}


def imported(folders: tuple[str, ...], top_level: bool) -> set[str]:
    """The distributions that files import: where a module loads, or anywhere."""
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    modules = set()
    for file in files:
        tree = ast.parse(file.read_text())
        for node in tree.body if top_level else ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.split(".")[0])
    return {DISTRIBUTION.get(name, name).lower() for name in modules - OURS - set(sys.stdlib_module_names)}


def test_requirements_name_what_the_scripts_import():
    scripts = imported(("util", "segmentation"), top_level=True)
    assert scripts <= named("requirements.txt").keys()
    extras = [path.name for path in ROOT.glob("requirements-*.txt")]
    assert imported(("util", "segmentation"), top_level=False) <= named("requirements.txt", *extras).keys()
    extras += [f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("requirements*.txt")]
    assert imported(("benchmarks",), top_level=False) <= named("requirements.txt", *extras).keys()


def test_requirements_name_nothing_else():
    used = imported(("util", "segmentation", "benchmarks"), top_level=False)
    assert named("requirements.txt").keys() - used == {"tensorboard"}  # PyTorch imports it


def test_the_tested_versions_are_in_the_ranges():
    ranges, tested = named("requirements.txt"), named("constraints.txt")
    assert ranges.keys() == tested.keys()
    for name, version in tested.items():
        least = re.search(r">=([\d.]+)", ranges[name])
        assert least, name
        assert [*map(int, version.removeprefix("==").split("."))] >= [*map(int, least[1].split("."))], name


def test_the_citation_is_the_papers():
    citation = (ROOT / "CITATION.cff").read_text()
    title = "Medical supervised masked autoencoders: Crafting a better masking strategy and efficient fine-tuning schedule"
    readme = re.sub(r"\s+", " ", (ROOT / "README.md").read_text())
    for words in (title, "2305.05871", "Mao", "Guo", "Chang", "Yin", "Nie", "2023"):
        assert words in citation and words in readme, words


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "recipes").glob("*.sh")))
def test_recipes_are_bash(script):
    subprocess.run(["bash", "-n", ROOT / "recipes" / script], check=True)


def test_the_tour_runs_as_it_stands(tmp_path):
    """Every cell of the notebook runs, and it is kept without what it printed and drew."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) <= 10 and not any(cell.outputs or cell.execution_count for cell in cells)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "docs")}}).execute()
    drawn = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    assert drawn >= 4
    printed = json.dumps([cell.outputs for cell in cells])
    assert "balanced accuracy" in printed and "p(" in printed
