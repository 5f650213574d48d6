"""Files of ``mobileutr export --end-to-end``, run by ONNX Runtime or OpenVINO: without torch and MONAI."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mobileutr_monai.core.atomic import hash_file
from mobileutr_monai.export.label_pixels import label_pixels
from mobileutr_monai.inference.pieces import keep_largest_pieces
from mobileutr_monai.readers.pillow_io import open_image, to_mode

__all__ = ["RUNTIMES", "EndToEndModel", "Runtime"]

Run = Callable[[np.ndarray], np.ndarray]


class Runtime(NamedTuple):
    """What runs a kind of file.

    Attributes:
        name: of its files, in messages.
        program: as people call it.
        package: that is imported for it, also the extra of the project's that installs it.
        open: opens a path with a number of threads; returns what runs pixels, and the facts in the file.
        files: a path -> all its files.
        option: of ``mobileutr export``, that makes such a file.
    """

    name: str
    program: str
    package: str
    open: Callable[[Path, int], tuple[Run, dict[str, str]]]
    files: Callable[[Path], list[Path]]
    option: str = ""


class EndToEndModel:
    """A file that takes pixels and gives a label map.

    Args:
        path: file of ``mobileutr export --end-to-end``, of ``--format onnx`` or ``openvino``.
        threads: that one image uses; 0 for all.

    Attributes:
        labels: index -> name, without the background.
        runtime: what runs it.
        sha256: of its file, or of the hashes of its files.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: its runtime is not installed, or the file is of another kind.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.runtime = runtime = RUNTIMES[path.suffix]
        if not path.is_file():
            raise FileNotFoundError(f"no {runtime.name} file at {path}")
        if importlib.util.find_spec(runtime.package) is None:
            package = runtime.package
            raise ValueError(f'an {runtime.name} file needs {package}: pip install "mobileutr-monai[{package}]"')
        remedy = f"make one with mobileutr export BUNDLE {runtime.option}--end-to-end --output FILE{path.suffix}"
        try:
            self._run, self.facts = runtime.open(path, threads)
        except FileNotFoundError:
            raise
        except Exception:  # noqa: BLE001 - the runtimes have no class for their errors
            release = importlib.import_module(runtime.package).__version__
            raise ValueError(
                f"{path} is no {runtime.name} model that {runtime.program} {release} can run; {remedy}"
            ) from None
        if self.facts.get("end_to_end") != "true":
            raise ValueError(f"{path} is an {runtime.name} model, but takes no pixels; {remedy}")
        names = {int(index): name for index, name in json.loads(self.facts["labels"]).items()}
        self.labels = {index: name for index, name in sorted(names.items()) if index}
        hashes = [hash_file(part) for part in runtime.files(path)]
        self.sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        self._crop_bars = self.facts.get("crop_bars") == "true"
        self._largest_piece = self.facts.get("largest_piece") == "true"
        self._mode = "RGB" if self.facts["channels"] == "3" else "L"

    def segment(self, path: Path) -> np.ndarray:
        """Returns the label map of an image; several threads may do that at once.

        Shape:
            - output: (rows, columns), uint8.

        Raises:
            ValueError: it cannot be read, or all its pixels are the same.
        """
        with open_image(path, "image") as image:
            array = np.asarray(to_mode(image, self._mode))
        if array.min() == array.max():
            raise ValueError(f"all pixels have the value {array.flat[0]}: there is nothing to segment")
        clean = keep_largest_pieces if self._largest_piece else None
        return label_pixels(self._run, array.reshape(*array.shape[:2], -1), crop_bars=self._crop_bars, clean=clean)


def _open_onnx(path: Path, threads: int) -> tuple[Run, dict[str, str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    facts = dict(session.get_modelmeta().custom_metadata_map)
    return lambda pixels: session.run(None, {"pixels": pixels})[0], facts


def _open_openvino(path: Path, threads: int) -> tuple[Run, dict[str, str]]:
    import openvino

    values = path.with_suffix(".bin")
    if not values.is_file():
        raise FileNotFoundError(f"no {values.name} next to {path}; an OpenVINO file is two, copy both")
    model = openvino.Core().read_model(path)
    facts = _read_facts(model)
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    if threads:  # for each of the images at once
        cores = os.cpu_count() or 1
        settings |= {"NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores * threads}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    own = threading.local()  # a request is of one thread

    def run(pixels: np.ndarray) -> np.ndarray:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        return np.array(own.request.infer({0: pixels})[0])

    return run, facts


def _read_facts(model: Any) -> dict[str, str]:
    """Returns what an export wrote into a model of OpenVINO; nothing where it is another's."""
    if not model.has_rt_info(["mobileutr"]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info("mobileutr").value.items()}


RUNTIMES = {
    ".onnx": Runtime("ONNX", "onnxruntime", "onnxruntime", _open_onnx, lambda path: [path]),
    ".xml": Runtime(
        "OpenVINO",
        "OpenVINO",
        "openvino",
        _open_openvino,
        lambda path: [path, path.with_suffix(".bin")],
        "--format openvino ",
    ),
}
"""How a file's name ends -> what runs it."""
