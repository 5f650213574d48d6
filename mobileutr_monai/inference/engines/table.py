"""Engines: what computes the network's logits in the batch runner.

``torch`` is the network as it is, in float32: the default, and what every other engine is compared with. The others run
the network folded for inference (``fold_network``). On a CPU they take the images of a batch one by one, so that
results do not depend on the batch, bfloat16 ones neither; onnxruntime and openvino run several at once, a thread each,
which is faster than all threads on one image. On a GPU the folded network is a CUDA graph.

An engine is a row of ``ENGINES`` and a function that builds its predictor; ``scripts/compare_engines.py`` compares it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils import convert_to_tensor

from mobileutr_monai.core.atomic import temporary_path
from mobileutr_monai.export.formats import require, write_onnx
from mobileutr_monai.inference.inferers import computes_bfloat16
from mobileutr_monai.networks import MobileUtr, fold_network

__all__ = ["ENGINES", "Engine", "Predictor", "cache_dir", "cached_onnx", "start_engine", "why_unavailable"]

logger = logging.getLogger(__name__)

Predictor = Callable[[torch.Tensor], torch.Tensor]
"""Images (B, C, sides...) -> logits (B, classes, sides...), float32, on the images' device."""

Build = Callable[[MobileUtr, torch.device, int, Sequence[int] | None], Predictor]

ONNX_REVISION = 2
"""Part of the name of cached ONNX files; counts up when what is written of the same weights changes."""


class Engine(NamedTuple):
    """What an engine needs and gives.

    Attributes:
        precision: that it computes in, accumulation aside.
        devices: types of devices that it runs on.
        packages: in addition to those of a plain install.
        extra: of the project's that installs them.
        build: network, device, number of images in a batch and their sides, if known -> predictor.
    """

    precision: str
    devices: tuple[str, ...]
    packages: tuple[str, ...]
    extra: str
    build: Build


def start_engine(
    name: str, network: MobileUtr, device: torch.device, batch_size: int, sides: Sequence[int] | None = None
) -> Predictor:
    """Returns the predictor of an engine.

    Args:
        network: with its weights, on ``device``.
        batch_size: images that will come together; other numbers work.
        sides: of the images, so that an engine that compiles for one size does it now; others work.

    Raises:
        ValueError: the engine is unknown or not for this device, or a package is missing.
    """
    if name not in ENGINES:
        raise ValueError(f"engine {name!r} is unknown; choose one of auto, {', '.join(ENGINES)}")
    engine = ENGINES[name]
    if device.type not in engine.devices:
        raise ValueError(f"engine {name} runs on {' and '.join(engine.devices)}, not on {device.type}; choose another")
    require(engine.packages, engine.extra, f"engine {name}")
    return engine.build(network.eval(), device, batch_size, sides)


def why_unavailable(name: str, device: torch.device) -> str | None:
    """Returns in a few words why ``auto`` does not try an engine on this machine, None if it does."""
    engine = ENGINES[name]
    if device.type not in engine.devices:
        return f"needs {' or '.join(engine.devices)}"
    try:
        require(engine.packages, engine.extra, name)
    except ValueError:
        return "not installed"
    if engine.precision == "bfloat16" and not computes_bfloat16(device):
        return "this CPU has no bfloat16 and would emulate it"
    return None


def cache_dir() -> Path:
    """Returns the folder for what is made once on a machine; ``MOBILEUTR_CACHE`` names another one."""
    own = os.environ.get("MOBILEUTR_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobileutr"


def _use_network(
    network: MobileUtr, _device: torch.device, _batch_size: int, _sides: Sequence[int] | None
) -> Predictor:
    return network


def _build_torch(dtype: torch.dtype) -> Build:
    def build(network: MobileUtr, device: torch.device, batch_size: int, _sides: Sequence[int] | None) -> Predictor:
        folded: Any = fold_network(network)
        layout = torch.channels_last if network.spatial_dims == 2 else torch.channels_last_3d
        folded.to(memory_format=layout)

        def run(images: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits: torch.Tensor = folded(images.contiguous(memory_format=layout))
            return logits.float()

        if device.type == "cpu":
            return _in_batches_of(1, run)
        return _in_batches_of(batch_size, _replay_graphs(run))

    return build


def _replay_graphs(run: Predictor) -> Predictor:
    """Has a GPU go through ``run`` once for each shape, and then replay what it did: CUDA graphs."""
    graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}

    def capture(images: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
        inputs, graph = images.clone(), torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # what libraries do once must not become part of the graph
                run(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            logits = run(inputs)
        return graph, inputs, logits

    def predict(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.no_grad():  # inference tensors could not be written again outside of it
            if images.shape not in graphs:
                graphs[images.shape] = capture(images)
            graph, inputs, logits = graphs[images.shape]
            inputs.copy_(images)
            graph.replay()
            return logits.clone()

    return predict


def _in_batches_of(size: int, run: Predictor) -> Predictor:
    """Has ``run`` see batches of one size only, filled up with zeros: in bfloat16 results depend on it."""

    def predict(images: torch.Tensor) -> torch.Tensor:
        logits = []
        for part in torch.split(convert_to_tensor(images, track_meta=False), size):
            filling = part.new_zeros(size - len(part), *part.shape[1:])
            logits.append(run(torch.cat((part, filling)) if len(filling) else part)[: len(part)])
        return torch.cat(logits)

    return predict


def _build_onnxruntime(
    network: MobileUtr, _device: torch.device, _batch_size: int, _sides: Sequence[int] | None
) -> Predictor:
    import onnxruntime

    path = cached_onnx(network)
    threads = torch.get_num_threads()

    def open_session(threads: int) -> Callable[[np.ndarray], np.ndarray]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would slow what reads and writes
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda image: session.run(None, {"image": image})[0]

    beside = open_session(1)
    alone = open_session(threads) if _may_share_threads(network) else beside
    pool = ThreadPoolExecutor(threads)

    def run_all(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [alone(images[0])] if len(images) == 1 else list(pool.map(beside, images))

    return _image_by_image(run_all)


def _build_openvino(precision: str) -> Build:
    def build(network: MobileUtr, _device: torch.device, batch_size: int, sides: Sequence[int] | None) -> Predictor:
        import openvino

        core = openvino.Core()
        path = cached_onnx(network)
        threads = torch.get_num_threads()

        def compile_for(shape: tuple[int, ...], streams: int) -> Any:
            model = core.read_model(path)
            model.reshape(list(shape))  # a fixed size is faster than a free one
            options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
            return openvino.AsyncInferQueue(core.compile_model(model, "CPU", options), streams)

        queues: dict[tuple[tuple[int, ...], int], Any] = {}

        def find_queue(shape: tuple[int, ...], number: int) -> Any:
            key = shape, 1 if number == 1 and _may_share_threads(network) else threads
            if key not in queues and number == 1 and (shape, threads) in queues:
                key = shape, threads  # compiling for one image takes longer than all threads on it would save
            if key not in queues:
                queues[key] = compile_for(*key)
            return queues[key]

        def run_all(images: Sequence[np.ndarray]) -> list[np.ndarray]:
            queue = find_queue(images[0].shape, len(images))
            logits: list[np.ndarray] = [np.empty(0)] * len(images)
            queue.set_callback(
                lambda request, index: logits.__setitem__(index, request.get_output_tensor().data.copy())
            )
            for index, image in enumerate(images):
                queue.start_async({0: image}, index)
            queue.wait_all()
            return logits

        if sides is not None:
            find_queue((1, network.in_channels, *sides), batch_size)
        return _image_by_image(run_all)

    return build


def _may_share_threads(network: MobileUtr) -> bool:
    """Whether all threads may compute one image: in 3D the sums of instance norm would have other last bits then."""
    return network.spatial_dims == 2


def _image_by_image(run_all: Callable[[Sequence[np.ndarray]], list[np.ndarray]]) -> Predictor:
    def predict(images: torch.Tensor) -> torch.Tensor:
        arrays = convert_to_tensor(images, track_meta=False).contiguous().numpy()
        return torch.from_numpy(np.concatenate(run_all([arrays[i : i + 1] for i in range(len(arrays))])))

    return predict


def cached_onnx(network: MobileUtr) -> Path:
    """Returns the ONNX file of a network's architecture and weights, written if it is not there yet."""
    digest = hashlib.sha256(f"{ONNX_REVISION} torch {torch.__version__} {network.architecture}".encode())
    for key, value in network.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    path = cache_dir() / f"network-{digest.hexdigest()[:32]}.onnx"
    if not path.is_file():
        logger.warning("writing the network as ONNX, once for these weights; that may take half a minute")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(path.with_name(f"{path.stem}-{os.getpid()}.onnx"))
        try:
            write_onnx(network, temporary, {})
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


_ONNX = ("onnx", "onnxscript")

ENGINES: dict[str, Engine] = {
    "torch": Engine("float32", ("cpu", "cuda"), (), "", _use_network),
    "torch-folded": Engine("float32", ("cpu", "cuda"), (), "", _build_torch(torch.float32)),
    "torch-bf16": Engine("bfloat16", ("cpu", "cuda"), (), "", _build_torch(torch.bfloat16)),
    "torch-fp16": Engine("float16", ("cuda",), (), "", _build_torch(torch.float16)),
    "onnxruntime": Engine("float32", ("cpu",), (*_ONNX, "onnxruntime"), "onnxruntime", _build_onnxruntime),
    "openvino": Engine("float32", ("cpu",), (*_ONNX, "openvino"), "openvino", _build_openvino("f32")),
    "openvino-bf16": Engine("bfloat16", ("cpu",), (*_ONNX, "openvino"), "openvino", _build_openvino("bf16")),
}
"""Name -> engine; the first is the default. ``auto`` is one of them, chosen by measuring."""
