"""`python -m bench`: answers every question and writes the answers to bench/results/."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.environment import describe, footer
from bench.markdown import verdict_table

RESULTS = Path(__file__).parent / "results"
QUESTIONS = (  # in the order of the budgets
    "span_cost",
    "exporter_cpu",
    "otlp_translation",
    "loop_latency",
    "import_cost",
    "memory",
    "setter_cost",
    "decorator_cost",
    "batch_cost",
    "request_cost",
    "integration_cost",
    "thread_scaling",
    "ingest",
    "otlp_ingest",
    "otlp_duplicates",
    "query",
    "why",
    "reader_wait",
    "span_profile",
    "outage",
    "fork_cost",
    "sender_budgets",
    "agent_load",
)
LONG = ("soak", "vllm_cost")  # run only when named


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "questions", nargs="*", metavar="QUESTION", help=", ".join((*QUESTIONS, *LONG))
    )
    parser.add_argument("--fast", action="store_true", help="fewer rounds: a check, not a result")
    parser.add_argument(
        "--figure", action="store_true", help="only draw docs/figures/ from the results there are"
    )
    parser.add_argument("--hours", type=float, help="how long soak goes on; default: 5 minutes")
    options = parser.parse_args()
    if unknown := [name for name in options.questions if name not in (*QUESTIONS, *LONG)]:
        parser.error(f"no such question: {', '.join(unknown)}")
    if options.figure:
        _draw()
        return
    RESULTS.mkdir(exist_ok=True)
    start = time.monotonic()
    verdicts: list[dict[str, Any]] = []
    failed: list[str] = []
    for name in options.questions or QUESTIONS:
        try:
            verdicts += _answer(name, options.fast, options.hours)
        except Exception:  # go on with the other questions
            traceback.print_exc()
            failed.append(name)
    found = {"verdicts": verdicts, "failed": failed}
    unanswered = f"Not answered, for an error: {', '.join(failed)}." if failed else ""
    _write("summary", "Which budgets hold?", unanswered, found, start, options.fast)
    sys.exit(bool(failed))


def _draw() -> None:
    """Draw the figures for which there are results."""
    from bench import figure, soak

    for name, draw in (("span_cost", figure.draw), ("soak", soak.draw)):
        if (found := RESULTS / f"{name}.json").exists():
            print(draw(json.loads(found.read_text())))


def _answer(name: str, fast: bool, hours: float | None) -> list[dict[str, Any]]:
    question = import_module(f"bench.{name}")
    start = time.monotonic()
    longer = {"hours": hours} if name in LONG else {}
    answer = question.measure(RESULTS, fast, **longer)
    title, _, method = (question.__doc__ or "").partition("\n\n")
    _write(name, title, f"{answer.tables}\n{method}", asdict(answer), start, fast)
    return [{"question": name, **verdict} for verdict in answer.verdicts]


def _write(
    name: str, title: str, body: str, found: dict[str, Any], start: float, fast: bool
) -> None:
    environment = describe()
    seconds = round(time.monotonic() - start, 1)
    result = {"question": name, "fast": fast, "duration_s": seconds, "environment": environment}
    result.update(found)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2))
    verdicts = verdict_table(found["verdicts"]) if found["verdicts"] else ""
    note = "Fast: it shows that it runs, and is no result." if fast else ""
    parts = (f"## {title}", body.strip(), verdicts.strip(), note, footer(environment))
    markdown = "\n\n".join(part for part in parts if part) + "\n"
    (RESULTS / f"{name}.md").write_text(markdown)
    print(markdown, flush=True)


if __name__ == "__main__":
    main()
