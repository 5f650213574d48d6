"""File formats of exported networks: how each is written, reopened and run.

A network is exported as ``fold_network`` makes it, in float32, with its facts (labels, version, hash of the weights)
inside the file. The input is called ``image`` and the output ``logits``; the batch is free, and so are the sides, as
multiples of 16. ExecuTorch's programs are of one image of one size: their memory is planned when they are written.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from mobileutr_monai.export.executorch import open_executorch, write_executorch
from mobileutr_monai.export.prepare import Facts, Run, prepare, quiet
from mobileutr_monai.export.torchscript import open_torchscript, write_torchscript
from mobileutr_monai.networks import MobileUtr
from mobileutr_monai.networks.mobileutr import SIZE_DIVISOR

__all__ = [
    "FORMATS",
    "Format",
    "MissingPackageError",
    "convert_to_openvino",
    "describe_ranges",
    "require",
    "save_onnx",
    "write_onnx",
]

OPSET = 20
"""The first ONNX operator set that has Gelu as one operator."""

_AXES = ("rows", "columns", "planes")


class MissingPackageError(ValueError):
    """A package of an extra is not installed; the message says which to install."""


class Format(NamedTuple):
    """A file format of exported networks.

    Attributes:
        packages: that are imported for it.
        extra: of the project's that installs them.
        write: writes network and facts to a path.
        open: opens a path; returns what runs an array (B, C, sides...), and the facts in the file.
        files: a written path -> all its files.
        fixed_size: the file takes one image of one size, the fact ``sides``.
        spatial_dims: of the networks that it can hold.
    """

    packages: tuple[str, ...]
    extra: str
    write: Callable[[MobileUtr, Path, Facts], None]
    open: Callable[[Path], tuple[Run, dict[str, str]]]
    files: Callable[[Path], list[Path]]
    fixed_size: bool = False
    spatial_dims: tuple[int, ...] = (2, 3)


def require(packages: tuple[str, ...], extra: str, what: str) -> None:
    """Checks that packages are installed, without importing them.

    Raises:
        MissingPackageError: one is not.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackageError(f'{what} needs {", ".join(missing)}: pip install "mobileutr-monai[{extra}]"')


def describe_ranges(spatial_dims: int) -> str:
    """Returns in words what sizes an exported network takes."""
    sides = " and ".join(_AXES[:spatial_dims]) if spatial_dims == 2 else "all three sides"
    return f"any batch; {sides} multiples of {SIZE_DIVISOR}"


def write_onnx(network: MobileUtr, path: Path, facts: Facts) -> None:
    """Writes an ONNX file with the weights in it; the facts are its ``metadata_props``."""
    folded, example = prepare(network)
    dims = {0: torch.export.Dim("batch", min=1, max=4096)}
    for axis, name in enumerate(_AXES[: network.spatial_dims], start=2):
        dims[axis] = SIZE_DIVISOR * torch.export.Dim(name, min=1, max=1024)
    with quiet():
        program = torch.onnx.export(
            folded,
            (example,),
            dynamo=True,
            dynamic_shapes=(dims,),
            input_names=["image"],
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    save_onnx(program, path, facts)


def save_onnx(program: Any, path: Path, facts: Facts) -> None:
    """Saves what ``torch.onnx.export`` gives, without the traces of this machine's source files in it."""
    model = program.model_proto
    for item in [*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        del item.metadata_props[:]
        item.doc_string = ""
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def _open_onnx(path: Path) -> tuple[Run, dict[str, str]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0], dict(session.get_modelmeta().custom_metadata_map)


def _write_openvino(network: MobileUtr, path: Path, facts: Facts) -> None:
    # By way of ONNX: from the module itself OpenVINO 2026.4 takes the wrong shape for a reshape in the LGL blocks.
    with TemporaryDirectory() as folder:
        write_onnx(network, Path(folder) / "network.onnx", {})
        convert_to_openvino(Path(folder) / "network.onnx", path, facts)


def convert_to_openvino(source: Path, path: Path, facts: Facts) -> None:
    """Writes an ONNX file as OpenVINO's two files, in float32, with facts in them."""
    import openvino

    model = openvino.convert_model(source)
    for key, value in facts.items():
        model.set_rt_info(value, ["mobileutr", key])
    openvino.save_model(model, path, compress_to_fp16=False)


def _open_openvino(path: Path) -> tuple[Run, dict[str, str]]:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = {key: str(value) for key, value in model.get_rt_info("mobileutr").value.items()}
    return lambda image: np.array(compiled(image)[0]), facts


def _one_file(path: Path) -> list[Path]:
    return [path]


FORMATS: dict[str, Format] = {
    "onnx": Format(("onnx", "onnxscript", "onnxruntime"), "onnxruntime", write_onnx, _open_onnx, _one_file),
    "openvino": Format(
        ("onnx", "onnxscript", "openvino"),
        "openvino",
        _write_openvino,
        _open_openvino,
        lambda path: [path.with_suffix(".bin"), path],
    ),
    "torchscript": Format((), "", write_torchscript, open_torchscript, _one_file),
    "executorch": Format(("executorch",), "executorch", write_executorch, open_executorch, _one_file, True, (2,)),
}
"""Name on the command line -> format; how their files' names end is in ``choices.SUFFIXES``."""
