"""Which execution provider runs a file. Asked for and not running is an error, never a slower answer.

ONNX Runtime itself lists providers that cannot start, prints why, and goes on with the CPU.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnxruntime as ort

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
SHORT = {"tensorrt": TENSORRT, "cuda": CUDA, "cpu": CPU}
BOTH = (
    "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; run: pip uninstall -y "
    "onnxruntime onnxruntime-gpu, then install one of osdtw-models[export] and osdtw-models[export-gpu]"
)


def both_installed() -> bool:
    """Whether the CPU's and the GPU's package are installed side by side: they own the same folder."""
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            version(name)
        except PackageNotFoundError:
            return False
    return True


def wanted_providers(asked: str | Sequence[str] | None) -> list[str]:
    """ONNX Runtime's names of what was asked for.

    Args:
        asked: Names, long or short ("tensorrt", "cuda", "cpu"), best first; None for CUDA where it is installed,
            else the CPU. TensorRT builds engines for minutes: only who asks for it gets it.

    Returns:
        Names, best first.

    Raises:
        ValueError: If one of them is not in this onnxruntime.
    """
    available = ort.get_available_providers()
    if asked is None:
        return [name for name in (CUDA, CPU) if name in available]
    names = [SHORT.get(name.lower(), name) for name in ([asked] if isinstance(asked, str) else asked)]
    for name in names:
        if name not in available:
            hint = BOTH if both_installed() else "choose one of these, or for a GPU install 'osdtw-models[export-gpu]'"
            raise ValueError(f"This onnxruntime has no {name}, only {', '.join(available)}; {hint}.")
    return names or [CPU]


def open_session(
    content: bytes,
    path: str,
    asked: str | Sequence[str] | None,
    threads: int | None,
    fixed_batch: bool = False,
    fp16: bool = False,
) -> ort.InferenceSession:
    """Open a file, or say in one sentence why not.

    Args:
        content: The file's bytes.
        path: Its name; engines that TensorRT builds are kept beside it.
        asked: See `wanted_providers`.
        threads: Threads of one operator; ONNX Runtime's own choice by default.
        fixed_batch: Whether shapes never change: then CUDA's kernels are recorded once and replayed as one graph.
        fp16: Whether TensorRT may compute in 16 bits.

    Returns:
        The session, on the first of the providers that were asked for.

    Raises:
        ValueError: If a provider is missing or does not start, or ONNX Runtime cannot read the file.
    """
    names = wanted_providers(asked)
    if asked is None and both_installed():  # the GPU's may be gone without a trace
        warnings.warn(f"{BOTH}.", RuntimeWarning, stacklevel=3)
    if CUDA in names and hasattr(ort, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # whether CUDA starts is seen below
            ort.preload_dlls()  # finds NVIDIA's libraries where pip put them
    options = ort.SessionOptions()
    # Idle threads of one session would otherwise spin and slow down the next one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    key = hashlib.sha256(content).hexdigest()[:16]
    given = [(name, provider_options(name, path, key, fixed_batch, fp16)) for name in names]
    try:
        session = ort.InferenceSession(content, options, providers=given)
    except Exception as error:  # each of ONNX Runtime's errors is its own child of Exception
        way_out = "write it again with osdtw-export --onnx"
        if names != [CPU]:
            way_out = f"ask for {CPU} to see whether it is the file or {names[0]}"
        raise ValueError(f"ONNX Runtime cannot open {path} ({reason(error)}); {way_out}.") from error
    lost = [name for name in names if name not in session.get_providers()]
    if lost:
        why = BOTH if both_installed() else "check the GPU's driver and libraries"
        message = f"{lost[0]} is installed but did not start; {why}, or ask for {CPU}."
        if asked is not None:
            raise ValueError(message)
        warnings.warn(f"{message} Running on the CPU.", RuntimeWarning, stacklevel=3)
    session.disable_fallback()
    return session


def provider_options(name: str, path: str, key: str, fixed_batch: bool, fp16: bool) -> dict[str, Any]:
    """Options of one provider; ONNX Runtime takes strings.

    Args:
        name: The provider.
        path: The file; TensorRT keeps its engines beside it.
        key: Digest of the file's content: TensorRT knows an engine by its graph, not by its weights.
        fixed_batch: Whether the file takes one batch size only.
        fp16: Whether it has 16 bits.

    Returns:
        The options.
    """
    if name == CUDA:
        return {"enable_cuda_graph": str(int(fixed_batch))}
    if name == TENSORRT:
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": os.fspath(Path(path).resolve().with_suffix(".tensorrt") / key),
            "trt_fp16_enable": str(int(fp16)),
            "trt_cuda_graph_enable": str(int(fixed_batch)),
        }
    return {}


def reason(error: Exception) -> str:
    """The first line of what ONNX Runtime says, or the kind of its error. `osdtw_models.doors` would bring PyTorch."""
    return (str(error) or type(error).__name__).splitlines()[0]
