"""ONNX Runtime on one CPU thread, or on a GPU through one of its own providers.

One thread runs in the caller: no pool, no hand-over, no spinning, and the GIL is released meanwhile.  A
second thread would keep a core spinning between steps and was seen to make the acquisition thread 376 ms
late at p99 on a two-core machine.

With a GPU provider the buffers stay in host memory, and ONNX Runtime copies the state both ways at every
step; the `tensorrt` backend keeps it on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from engine.backends import BackendConfig, Buffers, Running, check
from engine.runner import Runner
from streamer.errors import BundleError, MissingDependency

if TYPE_CHECKING:
    from engine.bundle import Bundle, Graph

ONNX_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "bool": "tensor(bool)"}
Provider = Literal["cpu", "cuda", "tensorrt"]
PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# What a provider does not take goes to the next one.  TF32 is on by default there, and moves codes.
ORDER: dict[Provider, tuple[tuple[str, dict[str, str]], ...]] = {
    "cpu": ((PROVIDERS["cpu"], {}),),
    "cuda": ((PROVIDERS["cuda"], {"use_tf32": "0"}), (PROVIDERS["cpu"], {})),
    "tensorrt": (
        (PROVIDERS["tensorrt"], {}),
        (PROVIDERS["cuda"], {"use_tf32": "0"}),
        (PROVIDERS["cpu"], {}),
    ),
}


class Config(BackendConfig):
    """Settings of the ONNX Runtime backend.

    Attributes
    ----------
    provider : "cpu", "cuda" or "tensorrt"
        Which of ONNX Runtime's providers runs the graph; the last two need its GPU build.
    threads : int
        Of the CPU.
    """

    kind: Literal["onnxruntime"] = "onnxruntime"
    provider: Provider = "cpu"
    threads: Annotated[int, Field(ge=1, le=64)] = 1

    def open(self, bundle: Bundle) -> OnnxRuntimeBackend:
        """Compile the bundle's graph."""
        return OnnxRuntimeBackend(bundle, self.threads, self.provider)


class OnnxRuntimeBackend:
    """A step graph compiled by ONNX Runtime.

    Raises
    ------
    BundleError
        The graph cannot be parsed, or its tensors are not those of the manifest.
    MissingDependency
        This build of ONNX Runtime lacks the provider, or the provider does not start here.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, provider: Provider = "cpu") -> None:
        import onnxruntime as ort

        _offered(provider, ort.get_available_providers(), ort.__version__)
        if provider == "tensorrt" and bundle.manifest.tokens is not None:
            raise BundleError(
                f"Bundle {bundle.label} puts out codes, and ONNX Runtime's TensorRT provider has no setting "
                "for TF32, which changes codes. Use provider: cuda, or backend: {kind: tensorrt}."
            )
        self.graph = bundle.manifest.graph
        self.name = _name(ort.__version__, provider, threads)
        try:
            self._session: Any = ort.InferenceSession(
                bundle.graph_bytes, _options(bundle, threads), providers=list(ORDER[provider])
            )
        except _refusals() as error:
            path = bundle.folder / self.graph.file
            raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {path}: {error}") from error
        _started(provider, self._session.get_providers())
        _compare(self._session, self.graph, bundle)

    def bind(self, buffers: Buffers) -> Callable[[], None]:
        """Return a function that runs one step over these buffers, without allocating."""
        check(self.graph, buffers)
        binding = self._session.io_binding()
        for name, array in {self.graph.input.name: buffers.input, **buffers.state_in}.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in {**buffers.outputs, **buffers.state_out}.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        session = self._session

        def step(_keep_alive: Buffers = buffers) -> None:
            session.run_with_iobinding(binding)

        return step

    def runner(self) -> Running:
        """Return a runner whose state lies in host memory."""
        return Runner(self)

    def close(self) -> None:
        """Let go of the compiled graph."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _options(bundle: Bundle, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if free := bundle.manifest.free_dimension:  # settled here: one row then costs what a fixed one does
        options.add_free_dimension_override_by_name(free, bundle.manifest.graph.input.shape[0])
    options.log_severity_level = 4  # its refusals reach the user through BundleError, not twice
    return options


def _name(version: str, provider: Provider, threads: int) -> str:
    if provider != "cpu":
        return f"onnxruntime {version}, {provider}, state in host memory"
    return f"onnxruntime {version}, cpu, {threads} thread{'s' if threads > 1 else ''}"


def _offered(provider: Provider, available: Sequence[str], version: str) -> None:
    """Raise MissingDependency unless this build of ONNX Runtime has the provider."""
    if PROVIDERS[provider] in available:
        return
    known = [name for name, full in PROVIDERS.items() if full in available]
    raise MissingDependency(
        f"provider: {provider} needs ONNX Runtime's {PROVIDERS[provider]}; the installed build "
        f"({version}) has {', '.join(known)}. Replace it: pip uninstall onnxruntime, then pip install "
        "onnxruntime-gpu."
    )


def _started(provider: Provider, running: Sequence[str]) -> None:
    """Raise MissingDependency where ONNX Runtime went on without the provider that was asked for."""
    if PROVIDERS[provider] not in running:
        raise MissingDependency(
            f"ONNX Runtime's {PROVIDERS[provider]} does not start here (it would have run on "
            f"{', '.join(running)}): its CUDA libraries are missing, or there is no GPU. `bcistream doctor` "
            "says which."
        )


def _refusals() -> tuple[type[BaseException], ...]:
    """Return what ONNX Runtime raises for a graph that it does not take."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
    return (*(getattr(state, name) for name in names), RuntimeError)


def _compare(session: Any, graph: Graph, bundle: Bundle) -> None:
    """Raise BundleError unless the graph's tensors are exactly those of the manifest."""
    states_in = {s.input: (s.shape, s.dtype) for s in graph.state}
    states_out = {s.output: (s.shape, s.dtype) for s in graph.state}
    wanted_in = {graph.input.name: (graph.input.shape, graph.input.dtype), **states_in}
    wanted_out = {**{t.name: (t.shape, t.dtype) for t in graph.outputs}, **states_out}
    for side, wanted, nodes in (
        ("inputs", wanted_in, session.get_inputs()),
        ("outputs", wanted_out, session.get_outputs()),
    ):
        found = {node.name: (tuple(node.shape), node.type) for node in nodes}
        expected = {name: (shape, ONNX_TYPES[dtype]) for name, (shape, dtype) in wanted.items()}
        if found != expected:
            odd = sorted(name for name in found | expected if found.get(name) != expected.get(name))
            name = odd[0]
            raise BundleError(
                f"Bundle {bundle.label}: the graph's {side} are not the manifest's: {name!r} is "
                f"{found.get(name, 'absent')} in the graph, {expected.get(name, 'absent')} in the manifest "
                f"({len(odd)} differ). Export the bundle again."
            )
