"""Who may import whom, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import mobileutr_monai

PACKAGE = Path(mobileutr_monai.__file__).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

# Part of the package -> the other parts that it may import: those of the floors below, and the exceptions named here.
GROUND = {"networks", "transforms", "handlers", "readers", "datasets"}
"""They meet in the bundles' configs only."""
MIDDLE = {"inference", "export", "bundle"}
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"api", "bundle"},
    "core": set(),
    **{part: {"core"} for part in GROUND},
    # A mask is a file like an image: its pixels are read by the same functions.
    "datasets": {"core", "readers"},
    **{part: {"core", *GROUND} for part in MIDDLE},
    # The engines run the ONNX files that an export writes, and write them into their cache.
    "inference": {"core", "export", *GROUND},
    "monai_label": {"core", *GROUND, *MIDDLE},
    "api": {"core", *GROUND, *MIDDLE},
    "verbs": {"core", *GROUND, *MIDDLE},
    "__main__": {"core", "verbs", *GROUND, *MIDDLE},
}
MOST_MODULES = 12
OUTSIDE = {"scripts", "tests", "benchmarks", "bundles"}
HEAVY = {"torch", "monai", "ignite", "numpy", "scipy", "PIL", "nibabel", "pydicom"}


def part_of(module: str) -> str:
    return module.split("/")[0].removesuffix(".py")


def find_imports(module: str, tree: ast.AST) -> Iterator[list[str]]:
    """Yields the dotted name of everything imported in a syntax tree, split at the dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ["mobileutr_monai", *module.split("/")[:-1]]
            base = package[: len(package) + 1 - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ([*base, alias.name] for alias in node.names)


def imports_of(module: str) -> list[list[str]]:
    return list(find_imports(module, ast.parse(MODULES[module].read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import torch.nn as nn", ["torch.nn"]),
        ("from torch import nn, optim", ["torch.nn", "torch.optim"]),
        ("from . import blocks", ["mobileutr_monai.networks.blocks"]),
        ("from .blocks import Head", ["mobileutr_monai.networks.blocks.Head"]),
        ("from ..datasets import split", ["mobileutr_monai.datasets.split"]),
        ("def f():\n    import ignite", ["ignite"]),
    ],
)
def test_imports_are_found_in_every_form(source: str, names: list[str]) -> None:
    assert [".".join(name) for name in find_imports("networks/weights.py", ast.parse(source))] == names


@pytest.mark.parametrize("module", MODULES)
def test_a_part_imports_only_what_it_may(module: str) -> None:
    part = part_of(module)
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what {part} may import"
    parts = {name[1] for name in imports_of(module) if name[0] == "mobileutr_monai" and len(name) > 1}
    assert parts - {part} <= MAY_IMPORT[part]


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) == "core"])
def test_core_imports_the_standard_library_alone(module: str) -> None:
    assert {name[0] for name in imports_of(module)} <= sys.stdlib_module_names | {"mobileutr_monai"}


def test_no_folder_has_more_modules_than_one_can_take_in() -> None:
    counts = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    assert not {str(folder): number for folder, number in counts.items() if number > MOST_MODULES}


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) != "handlers"])
def test_only_handlers_import_ignite(module: str) -> None:
    assert "ignite" not in {name[0] for name in imports_of(module)}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_what_is_not_installed_with_it(module: str) -> None:
    assert not OUTSIDE & {name[0] for name in imports_of(module)}


def test_the_command_imports_only_the_standard_library_until_a_verb_runs() -> None:
    tree = ast.parse(MODULES["__main__.py"].read_text(encoding="utf-8"))
    top = ast.Module([node for node in tree.body if not isinstance(node, (ast.FunctionDef, ast.ClassDef))], [])
    assert {name[0] for name in find_imports("__main__.py", top)} <= sys.stdlib_module_names


@pytest.mark.parametrize("statement", ["import mobileutr_monai", "import mobileutr_monai.__main__"])
def test_nothing_heavy_is_loaded_by(statement: str) -> None:
    script = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("module", ["inference.predict_onnx", "datasets.check", "datasets.split"])
def test_a_folder_is_checked_and_an_onnx_file_run_without_torch_and_monai(module: str) -> None:
    script = f"import sys; import mobileutr_monai.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not (HEAVY - {"numpy", "PIL"}) & set(done.stdout.split())


@pytest.mark.parametrize("module", MODULES)
def test_pictures_are_opened_in_known_formats_alone(module: str) -> None:
    """Pillow would run Ghostscript on PostScript."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open"):
            assert "formats" in {keyword.arg for keyword in node.keywords}, "use readers.pillow_io.open_image"
