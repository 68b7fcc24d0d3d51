"""What all integrations promise: found late, switched any number of times, never in the way."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import infertrace
from infertrace.integrations import import_hook, switch
from infertrace.integrations.catalog import INTEGRATIONS, Integration, Library
from infertrace.integrations.switch import Switch
from infertrace.testing import SpanRecorder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PAGES = ROOT / "docs" / "integrations"


def new_switch(
    monkeypatch: pytest.MonkeyPatch, install: Any = lambda *_: None, **library: Any
) -> Switch:
    """One of a library that is described like this; `json` is there for sure."""
    described = Library(**{"module": "json", **library})
    entry = Integration("some", "some", (described,), "something")
    monkeypatch.setitem(INTEGRATIONS, "some", entry)
    return Switch("some", install)


def run(code: str) -> str:
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.strip()


def test_importing_infertrace_imports_none() -> None:
    code = "import sys, infertrace; print([n for n in sys.modules if '.integrations' in n])"
    assert run(code) == "[]"


def test_switching_on_imports_no_library() -> None:
    libraries = {
        library.module.partition(".")[0]
        for integration in INTEGRATIONS.values()
        for library in integration.libraries
        if library.distribution
    }
    code = f"""
import sys, infertrace
infertrace.instrument()
print(sorted({libraries} & set(sys.modules)))
import httpx
print(httpx.HTTPTransport.handle_request.__wrapped__.__qualname__, httpx.__loader__.__class__)
"""
    assert run(code).splitlines() == [
        "[]",
        "HTTPTransport.handle_request <class '_frozen_importlib_external.SourceFileLoader'>",
    ]


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_each_has_the_contract_an_extra_and_a_page(name: str) -> None:
    integration = INTEGRATIONS[name]
    module = import_module(f"infertrace.integrations.{integration.module}")
    tracer = infertrace.Tracer("file:///dev/null", enabled=False)
    for _ in range(2):
        module.instrument(tracer)
    for _ in range(2):
        module.uninstrument()
    with pytest.raises(TypeError, match="'colour'"):
        module.instrument(colour="red")
    tracer.shutdown()
    libraries = [library for library in integration.libraries if library.distribution]
    if libraries:
        wanted = {f"{library.distribution}>={library.lowest}" for library in libraries}
        assert wanted & set(EXTRAS[name])
    page = (PAGES / f"{name}.md").read_text()
    table = (PAGES / "README.md").read_text()
    for library in libraries:
        assert f"{library.distribution} {library.lowest} to {library.newest}" in page
        assert f"{library.distribution} {library.lowest} to {library.newest}" in table
    assert f"[{name}]({name}.md)" in table
    assert integration.says in table


def test_an_unknown_name(recorded_spans: SpanRecorder) -> None:
    for function in (infertrace.instrument, infertrace.uninstrument):
        with pytest.raises(ValueError, match=r"expected names of starlette, .*, got 'flask'"):
            function("openai", "flask")


def test_a_library_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = new_switch(
        monkeypatch, module="nowhere_to_be", distribution="nowhere", lowest="1.2", newest="3.4"
    )
    found.on()
    found.off()
    found.on()
    assert caplog.messages == [
        "some: infertrace works with nowhere 1.2 to 3.4; here it is not installed"
    ]
    found.off()


@pytest.mark.parametrize(
    ("lowest", "below", "traced"), [("99", "100", False), ("1", "2", True), ("1", "99", True)]
)
def test_other_versions(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lowest: str,
    below: str,
    traced: bool,
) -> None:
    installed = []
    found = new_switch(
        monkeypatch,
        lambda *_: installed.append(1),
        distribution="pytest",
        lowest=lowest,
        newest="1.5",
        below=below,
    )
    found.on()
    assert bool(installed) == traced
    assert ("some" in switch.activated()) == traced
    if below != "99":
        (message,) = caplog.messages
        assert f"pytest {lowest} to 1.5; here it is {pytest.__version__}" in message
    found.off()
    assert "some" not in switch.activated()


def test_a_hook_that_is_not_there_any_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import json

    before = json.dumps

    def install(found: Switch, module: str) -> None:
        found.patches.wrap(json, "dumps", lambda original: lambda *given: original(*given))
        found.patches.wrap(json, "no_such_function", lambda original: original)

    found = new_switch(monkeypatch, install)
    found.on()
    assert json.dumps is before
    (message,) = caplog.messages
    assert "cannot be traced (AttributeError: " in message
    found.off()


def test_our_own_failures_are_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = new_switch(monkeypatch)
    for _ in range(3):
        with found.guarded():
            raise KeyError("a prompt")
    assert caplog.messages == ["some: cannot be read completely (KeyError)"]


def test_what_others_wrapped_in_the_meantime_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def work(self) -> str:
            return "work"

    def install(found: Switch, module: str) -> None:
        def wrap(original: Any) -> Any:
            return lambda self: original(self) + (" traced" if found.is_on else "")

        found.patches.wrap(Library, "work", wrap)

    found = new_switch(monkeypatch, install)
    found.on()
    ours = Library.work
    Library.work = lambda self: ours(self) + " by others"  # type: ignore[method-assign]
    assert Library().work() == "work traced by others"
    found.off()
    assert Library().work() == "work by others"


def test_a_module_that_is_imported_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_later.py").write_text("NUMBER = 1\n")
    (tmp_path / "imported_never.py").write_text("raise ImportError('broken')\n")
    (tmp_path / "imported_plainly.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[int] = []

    def callback() -> None:
        seen.append(sys.modules["imported_later"].NUMBER)

    import_hook.when_imported("imported_later", callback)
    import_hook.when_imported("imported_never", callback)
    import_hook.when_imported("not_there_at_all", callback)
    for name in ("imported_never", "not_there_at_all"):
        with pytest.raises(ImportError):
            import_module(name)
    module = import_module("imported_later")
    import_hook.when_imported("imported_later", callback)
    assert seen == [1, 1]
    assert type(module.__loader__) is type(import_module("imported_plainly").__loader__)
    import_hook.forget(callback)
    monkeypatch.delitem(sys.modules, "imported_later")
    import_module("imported_later")
    assert seen == [1, 1]


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "infertrace")
