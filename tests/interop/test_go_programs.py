"""The Go module builds, and Go programs understand the oldest schema too."""

from collections.abc import Callable


def test_go_stubs_compile(go: Callable[..., str]) -> None:
    go("vet", "./...", "infertrace.dev/proto")


def test_old_and_new_go_programs_are_compatible(go: Callable[..., str]) -> None:
    # Go's test cache does not see changes outside its module, where the schema is.
    assert go("test", "-count=1", "./compatibility").startswith("ok ")
