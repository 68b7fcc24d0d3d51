"""`python -m bench`: answers every question and writes the answers to bench/results/."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from bench import span_cost
from bench.environment import describe_environment

RESULTS = Path(__file__).parent / "results"
QUESTIONS = {"span_cost": span_cost}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--fast", action="store_true", help="fewer rounds: a check, not a result")
    options = parser.parse_args()
    if unknown := [name for name in options.questions if name not in QUESTIONS]:
        parser.error(f"no such question: {', '.join(unknown)}")
    RESULTS.mkdir(exist_ok=True)
    for name in options.questions or QUESTIONS:
        environment = describe_environment()
        start = time.monotonic()
        answer, markdown = QUESTIONS[name].measure(RESULTS, options.fast)
        result = {
            "question": name,
            "fast": options.fast,
            "environment": environment,
            "duration_seconds": round(time.monotonic() - start, 1),
            **answer,
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2))
        packages = ", ".join(f"{key} {value}" for key, value in environment["packages"].items())
        commit = environment["commit"][:12] + "+" * environment["uncommitted_changes"]
        markdown += (
            f"\n{environment['cpu']}, {environment['cores']} cores, {environment['system']}, "
            f"load {environment['load_average_1min']}; {environment['python']}; {packages}; "
            f"commit {commit}\n"
        )
        (RESULTS / f"{name}.md").write_text(markdown)
        print(markdown)


if __name__ == "__main__":
    main()
