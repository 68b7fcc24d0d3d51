"""`infertrace spool drain`: every way a spool may end up, and platforms without spools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from infertrace.exporting.file_transport import read_batches
from infertrace.generated.span_pb2 import SendSpanBatchRequest
from traced_program import NOBODY, spools

LEFT_BEHIND = """
import os, signal, sys
import infertrace
tracer = infertrace.Tracer(sys.argv[1], spool_dir=sys.argv[2], resource_interval_s=0)
for _ in range(100):
    tracer.start_span("m").end()
os.kill(os.getpid(), signal.SIGKILL)
"""

# The modules that Windows lacks, and its `os.name`.
ON_WINDOWS = """
import os, sys
from infertrace.commands import main
sys.modules["fcntl"] = None
os.name = "nt"
sys.exit(main(["spool", "drain", "--spool-dir", "spools"]))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_into_a_file(tmp_path: Path) -> None:
    directory, file = tmp_path / "spools", tmp_path / "spans"
    run("-c", LEFT_BEHIND, NOBODY, str(directory))
    drain = ("-m", "infertrace", "spool", "drain", "--spool-dir", str(directory))
    done = run(*drain, "--endpoint", f"file://{file}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "100 spans delivered, 0 rejected, 0 damaged" in done.stdout
    assert spools(directory) == []
    batches = [SendSpanBatchRequest.FromString(batch) for batch in read_batches(file)]
    assert sum(len(batch.spans) for batch in batches) == 100


def test_where_there_is_no_spool() -> None:
    done = run("-c", ON_WINDOWS)
    assert done.returncode == 2
    assert "a spool needs a POSIX system" in done.stderr
    assert "Traceback" not in done.stderr
