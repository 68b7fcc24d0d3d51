"""What the SDK says goes to `logging` where the program has it, and to stderr where not."""

from __future__ import annotations

from typing import Any

from traced_program import NOBODY, run_program

BODY = """
    import sys
    {before}
    from infertrace.log import logger
    logger.info("%s of %d", "one", 3)
    logger.warning("%s of %d", "two", 3)
    try:
        1 / 0
    except ZeroDivisionError as error:
        logger.error("100 %% of %s", "three", exc_info=error)
    logger.warning("%d", "not a number")
    print("logging" in sys.modules)
"""


def test_without_logging(backend: Any) -> None:
    done = run_program(backend, BODY.format(before=""))
    assert done.stdout == "False\n"
    first, second, *trace = done.stderr.splitlines()
    assert (first, second) == ("two of 3", "100 % of three")
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-1] == "ZeroDivisionError: division by zero"


def test_with_logging(backend: Any) -> None:
    configured = "import logging; logging.basicConfig(format='%(name)s %(levelname)s %(message)s')"
    done = run_program(backend, BODY.format(before=configured))
    assert done.stdout == "True\n"
    first, second, *trace = done.stderr.splitlines()
    assert (first, second) == ("infertrace WARNING two of 3", "infertrace ERROR 100 % of three")
    assert "ZeroDivisionError: division by zero" in trace


def test_a_tracer_loads_no_logging(backend: Any) -> None:
    body = f"""
        import sys
        tracer = infertrace.Tracer("{NOBODY}")
        tracer.start_span("m").end()
        tracer.shutdown(0)
        print("logging" in sys.modules)
    """
    done = run_program(backend, body)
    assert done.stdout == "False\n"
    assert "1 spans were not delivered before the shutdown" in done.stderr
