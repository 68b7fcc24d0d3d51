"""The programs of docs/integrations/, each in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from grpc_receiver import Receiver
from traced_program import TIMEOUT_S, environment

PAGES = Path(__file__).parents[1] / "docs" / "integrations"
MAX_LINES = 10
PROGRAM = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def run_program(backend: Any, receiver: Receiver, program: str, **environ: str) -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(backend) | {"INFERTRACE_ENDPOINT": receiver.endpoint} | environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert outcome.returncode == 0, outcome.stderr
