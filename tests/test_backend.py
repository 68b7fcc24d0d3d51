"""The choice of a backend, made once, and the modules that an import loads."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import types
from typing import Any
from unittest import mock

import pytest

import infertrace
from infertrace import backend as backends
from infertrace.generated.span_setters import SETTERS


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_compiled_backend_is_there_where_it_is_required() -> None:
    if os.environ.get("INFERTRACE_REQUIRE_NATIVE"):
        assert backends.select("native").NAME == "native"


def test_the_environment_chooses(backend: Any) -> None:
    code = "import infertrace; print(infertrace.BACKEND)"
    assert run(code, INFERTRACE_BACKEND=backend.NAME).stdout.strip() == backend.NAME


def test_auto_prefers_the_compiled_one() -> None:
    try:
        backends.select("native")
        expected = "native"
    except ImportError:
        expected = "pure"
    assert expected == backends.select("auto").NAME


def test_an_unknown_name_raises() -> None:
    outcome = run("import infertrace", INFERTRACE_BACKEND="fast")
    assert outcome.returncode != 0
    assert "INFERTRACE_BACKEND: expected one of auto, native, pure, got 'fast'" in outcome.stderr


BLOCKED = "import sys; sys.modules['infertrace.recording.native'] = None\nimport infertrace"


def test_native_raises_the_original_error() -> None:
    outcome = run(BLOCKED, INFERTRACE_BACKEND="native")
    assert "ModuleNotFoundError" in outcome.stderr
    assert "infertrace.recording.native" in outcome.stderr


def test_auto_falls_back() -> None:
    outcome = run(f"{BLOCKED}; print(infertrace.BACKEND)", INFERTRACE_BACKEND="auto")
    assert outcome.stdout.strip() == "pure"


# 3.13 has another name for it, which takes "legacy" for an interpreter that shares the GIL.
IN_A_SUBINTERPRETER = """
try:
    import _interpreters as interpreters
    another = interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    another = interpreters.create(isolated=False)
if first:
    import infertrace
interpreters.run_string(another, '''
try:
    import infertrace
except ImportError as error:
    print(error)
''')
"""


@pytest.mark.parametrize("first", [True, False], ids=["second", "first"])
def test_a_subinterpreter_is_refused(backend: Any, first: bool) -> None:
    code = f"first = {first}\n{IN_A_SUBINTERPRETER}"
    outcome = run(code, INFERTRACE_BACKEND=backend.NAME)
    message = "infertrace does not support subinterpreters: import it in the main interpreter\n"
    # Cython's own refusal comes before ours where the main interpreter has loaded the module.
    of_cython = "Interpreter change detected - this module can only be loaded into one interpreter"
    assert outcome.stdout == message or (
        first and backend.NAME == "native" and of_cython in outcome.stdout
    ), outcome
    auto = run(code, INFERTRACE_BACKEND="auto")
    assert auto.stdout == message, auto


def test_running_without_the_gil_is_said(backend: Any) -> None:
    code = "import sys; sys._is_gil_enabled = lambda: False; import infertrace"
    outcome = run(code, INFERTRACE_BACKEND=backend.NAME)
    assert "RuntimeWarning: infertrace is not proven to work without the GIL" in outcome.stderr
    assert outcome.returncode == 0


def test_importing_and_recording_load_neither_grpc_nor_protobuf_nor_pynvml(backend: Any) -> None:
    code = """
import sys, json
import infertrace
from infertrace import backend
recorder = backend.selected.Recorder(max_buffer_bytes=65536, max_batch_bytes=4096, wake=int)
with recorder.start_span("m", batch_size=1) as span:
    span.set_tokens(1, 2)
infertrace.get_gpu_metrics()
heavy = ("grpc", "google.protobuf", "pynvml", "asyncio", "inspect", "duckdb", "fastapi")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    outcome = run(code, INFERTRACE_BACKEND=backend.NAME)
    assert json.loads(outcome.stdout) == [], outcome.stderr


def test_no_sdk_module_imports_the_collector() -> None:
    code = """
import sys, infertrace
tracer = infertrace.Tracer("localhost:1")
tracer.shutdown(0)
print([name for name in sys.modules
       if name.startswith("infertrace.collector")])
"""
    assert run(code).stdout.strip() == "[]"


def test_a_collector_loads_of_the_sdk_only_what_forwards() -> None:
    """Deliveries and transports: nothing that records, samples, spools or runs an exporter."""
    code = """
import sys
import types
import infertrace.collector.server
sdk = (
    "infertrace.buffering.spool", "infertrace.exporting.exporter", "infertrace.exporting.own_spool",
    "infertrace.exporting.rounds", "infertrace.resources.process", "infertrace.resources.sampler",
)
print([name for name in sys.modules if name.startswith(sdk)])
"""
    assert run(code).stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["Span", "Recorder"])
def test_both_backends_offer_the_same(name: str) -> None:
    pure = getattr(backends.select("pure"), name)
    try:
        native = getattr(backends.select("native"), name)
    except ImportError:
        pytest.skip("a pure installation has one backend")
    offered = {member for member in dir(pure) if not member.startswith("_")}
    assert offered - set(vars(pure).get("__slots__", ())) <= set(dir(native))
    for member in sorted(offered):
        function = getattr(pure, member)
        if inspect.isfunction(function):
            names = list(inspect.signature(function).parameters)[1:]
            if member == "start_span":
                continue  # test_the_signature_of_start_span
            twin = getattr(native, member)
            text = f"{twin.__text_signature__ or ''} {twin.__doc__ or ''}"
            for parameter in set(names) - {"fields"} if member == "start_step" else names:
                assert parameter in text, (member, parameter)


def test_the_signature_of_start_span(backend: Any) -> None:
    """Tools find it on both backends, and a replacement for the method is called."""
    named = {"model_name", "operation_name", "parent", "links", "tags", "attributes", "kind"}
    parameters = inspect.signature(infertrace.Tracer.start_span).parameters
    if backend.NAME == "native":
        named |= SETTERS.keys()
    else:
        assert parameters["fields"].annotation == "Unpack[SpanFields]"
    assert parameters.keys() - {"self", "fields"} == named
    assert "enter it with `with`" in (infertrace.Tracer.start_span.__doc__ or "")
    tracer = infertrace.Tracer("localhost:1")
    try:
        assert type(tracer) is infertrace.Tracer
        with mock.patch.object(infertrace.Tracer, "start_span", return_value="patched"):
            assert tracer.start_span("m") == "patched"  # type: ignore[comparison-overlap]
        assert tracer.start_span("m").is_recording
    finally:
        tracer.shutdown(0)


def test_the_signature_of_start_step(backend: Any) -> None:
    named = {"model_name", "operation_name", "parent", "links", "tags", "attributes", "kind"}
    named |= {"prefill", "decode", "capacity"}
    parameters = inspect.signature(infertrace.Tracer.start_step).parameters
    if backend.NAME == "native":
        named |= SETTERS.keys()
    assert parameters.keys() - {"self", "fields"} == named
    assert parameters["operation_name"].default == "step"
    assert "forward pass" in (infertrace.Tracer.start_step.__doc__ or "")


def test_version() -> None:
    outcome = run("import infertrace; print(infertrace.__version__)")
    command = subprocess.run(
        [sys.executable, "-m", "infertrace", "--version"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert outcome.stdout.strip() in command.stdout
    assert "backend" in command.stdout


def test_an_extension_of_other_code_is_refused() -> None:
    module = types.SimpleNamespace(NAME="native", current=None)
    assert backends.complete(module, ["NAME", "current"]) is module
    with pytest.raises(ImportError, match="lacks Recorder, set_current: expected one of this"):
        backends.complete(module, ["NAME", "Recorder", "set_current"])


def test_a_start_loads_little(backend: Any) -> None:
    """Each of these takes milliseconds of a program's start, and most programs need few of them."""
    program = """
import sys
before = set(sys.modules)
import infertrace
infertrace.Tracer("localhost:1", resource_interval_s=0, exit_timeout_s=0)
costly = {"asyncio", "ctypes", "dataclasses", "grpc", "inspect", "json", "logging", "typing"}
print(*costly & set(sys.modules) - before)
"""
    done = run(program, INFERTRACE_BACKEND=backend.NAME)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
