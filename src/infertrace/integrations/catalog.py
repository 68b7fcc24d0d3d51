"""Which libraries can be traced, in which versions: the one table of it.

The checks, the extras of pyproject.toml and docs/integrations/README.md follow from it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, NamedTuple


class Library(NamedTuple):
    """A library that an integration changes once it is imported."""

    module: str
    distribution: str = ""
    """Its name on the package index; empty for a part of Python."""
    lowest: str = ""
    """The lowest version that works."""
    newest: str = ""
    """The newest version that the tests have run with."""
    below: str = ""
    """The first version that is not expected to work."""

    def is_installed(self) -> bool:
        """Whether it can be imported; imports nothing."""
        try:
            return find_spec(self.module.partition(".")[0]) is not None
        except (ImportError, ValueError):
            return False


class Integration(NamedTuple):
    """What a user switches on by one name."""

    name: str
    module: str
    """In this package."""
    libraries: tuple[Library, ...]
    """Any of these."""
    says: str
    by_default: bool = True
    """Whether `instrument()` without names includes it."""

    def is_installed(self) -> bool:
        return any(library.is_installed() for library in self.libraries)


_ALL: Final = (
    Integration(
        "starlette",
        "starlette",
        (Library("starlette.applications", "starlette", "0.40", "1.10.0", "2"),),
        "each request of a FastAPI or Starlette application",
    ),
    Integration(
        "openai",
        "openai",
        (Library("openai", "openai", "2", "3.57.0", "4"),),
        "chat, completions, responses and embeddings of the OpenAI client",
    ),
    Integration(
        "httpx",
        "httpx",
        (
            Library("httpx", "httpx", "0.27", "0.28.1", "1"),
            Library("httpx2", "httpx2", "2", "2.16.2", "3"),
        ),
        "the trace context in what httpx and httpx2 send",
    ),
    Integration(
        "grpc",
        "grpc",
        (Library("grpc", "grpcio", "1.66", "1.85.3", "2"),),
        "each call of a gRPC server or channel, also of `grpc.aio`",
    ),
    Integration(
        "vllm",
        "vllm",
        (
            Library("vllm.v1.engine.async_llm", "vllm", "0.30", "0.32.0", "0.34"),
            Library("vllm.v1.engine.llm_engine", "vllm", "0.30", "0.32.0", "0.34"),
        ),
        "each step of vLLM's engines, and each of their requests",
    ),
    Integration(
        "onnxruntime",
        "onnxruntime",
        (Library("onnxruntime", "onnxruntime", "1.19", "1.32.0", "2"),),
        "each run of a session of ONNX Runtime",
    ),
    Integration(
        "xllamacpp",
        "xllamacpp",
        (Library("xllamacpp", "xllamacpp", "2026.8.10229", "2026.10.11549", "2028"),),
        "what is asked of a llama.cpp server of xllamacpp",
    ),
    Integration(
        "transformers",
        "transformers",
        (
            Library("transformers.generation.utils", "transformers", "5.19", "5.24.0", "6"),
            Library(
                "transformers.generation.continuous_batching.continuous_api",
                "transformers",
                "5.19",
                "5.24.0",
                "6",
            ),
        ),
        "what models of transformers generate, also in continuous batching",
    ),
    Integration(
        "sentence-transformers",
        "sentence_transformers",
        (Library("sentence_transformers", "sentence-transformers", "6", "6.2.0", "7"),),
        "embeddings and rankings of sentence-transformers",
    ),
    Integration(
        "llama-cpp",
        "llama_cpp",
        (Library("llama_cpp", "llama-cpp-python", "0.3.36", "0.3.36", "0.4"),),
        "completions, chats and embeddings of llama-cpp-python",
    ),
    Integration(
        "opentelemetry",
        "opentelemetry",
        (Library("opentelemetry.context", "opentelemetry-api", "1.34", "1.45.2", "2"),),
        "one trace from OpenTelemetry's spans and ours",
    ),
    Integration(
        "threads",
        "threads",
        (Library("concurrent.futures.thread"), Library("threading")),
        "the current span in threads and pools",
        by_default=False,  # the functions see all variables of the context, not only the span
    ),
)
INTEGRATIONS: Final = {integration.name: integration for integration in _ALL}
