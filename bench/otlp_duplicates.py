"""What does a batch of unnumbered spans cost with ten million stored, and what a repeated one?

The work: one commit of 10,000 spans without a producer's numbers, as OTLP brings them, to the
embedded store in this process: to an empty one, with ten million spans of the last hour, and once
that is closed and opened again. A repeated batch is one that was committed before, and is stored
already; a run that stores one twice fails. The journal is synced, as ever.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy
from bench.harness import Answer, ratios, run_part, run_rounds
from bench.markdown import table, with_spread
from bench.receiver import Addresses

STORED, FAST_STORED = 10_000_000, 200_000
SPANS_PER_BATCH, BATCHES = 10_000, 20
HOUR_NS = 3_600 * 10**9
RETRY_S = 0.05
STATES = ("empty", "full", "opened again")
NEW, REPEATED = "a new batch", "a repeated batch"


def batch(start_ns: int) -> Any:
    """Spans of one moment, with ids that no others have."""
    import pyarrow

    from infertrace.collector.store.span_rows import DECODED_SCHEMA, with_origin
    from infertrace.collector.store.store import Batch

    def repeated(text: str) -> Any:
        return pyarrow.array([text] * SPANS_PER_BATCH)

    drawn = pyarrow.py_buffer(os.urandom(16 * SPANS_PER_BATCH))
    trace_ids = pyarrow.Array.from_buffers(pyarrow.binary(16), SPANS_PER_BATCH, [None, drawn])
    columns = {
        "trace_id": pyarrow.ExtensionArray.from_storage(pyarrow.uuid(), trace_ids),
        "span_id": pyarrow.array(numpy.frombuffer(os.urandom(8 * SPANS_PER_BATCH), "u8")),
        "start_time": pyarrow.array(start_ns + numpy.arange(SPANS_PER_BATCH) * 1_000),
        "duration_nanos": pyarrow.array(numpy.full(SPANS_PER_BATCH, 41_000_000)),
        "status": repeated("OK"),
        "service_name": repeated("bench"),
        "model_name": repeated("gpt-4"),
    }
    rows = pyarrow.RecordBatch.from_arrays(
        [
            columns.get(field.name, pyarrow.nulls(SPANS_PER_BATCH, field.type))
            for field in DECODED_SCHEMA
        ],
        schema=DECODED_SCHEMA,
    )
    return Batch(with_origin(rows, None, None), SPANS_PER_BATCH)


def _times(store: Any) -> dict[str, float]:
    """Milliseconds for each batch, in the median."""
    batches = [batch(time.time_ns()) for _ in range(BATCHES)]
    found = {}
    for what in (NEW, REPEATED):
        taken = []
        for one in batches:
            start = time.perf_counter()
            duplicates = store.commit([one])
            taken.append((time.perf_counter() - start) * 1e3)
            if duplicates != (SPANS_PER_BATCH if what == REPEATED else 0):
                raise RuntimeError(f"{what}: {duplicates} spans were duplicates")
        found[what] = float(numpy.median(taken))
    return found


def _commit(store: Any, one: Any) -> None:
    from infertrace.collector.store.store import StoreBusyError

    while True:
        try:
            store.commit([one])
        except StoreBusyError:
            time.sleep(RETRY_S)
        else:
            return


def run(stored: int) -> dict[str, float]:
    """One run, in this process."""
    from infertrace.collector.store.duckdb.store import open_duckdb

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "spans.duckdb")
        store = open_duckdb(path)
        found = {"empty": _times(store)}
        start = time.time_ns() - HOUR_NS
        for number in range(stored // SPANS_PER_BATCH):
            _commit(store, batch(start + number * SPANS_PER_BATCH * HOUR_NS // stored))
        store.checkpoint()
        found["full"] = _times(store)
        store.close()
        start_s = time.perf_counter()
        store = open_duckdb(path)
        opening_s = time.perf_counter() - start_s
        found["opened again"] = _times(store)
        store.close()
    flat = {f"{what}, {state}": ms for state in STATES for what, ms in found[state].items()}
    return {**flat, "opening, s": opening_s}


def measure(folder: Path, fast: bool) -> Answer:
    rounds, stored = (1, FAST_STORED) if fast else (3, STORED)
    nowhere = Addresses("", "")
    results = run_rounds(
        ["run"], rounds, lambda _: run_part("bench.otlp_duplicates", stored, addresses=nowhere)
    )["run"]
    tables = table(
        ["ms per batch of 10,000 spans (rounds)", NEW, "over an empty store", REPEATED],
        [
            [
                f"{state}, {stored:,} spans" if state != "empty" else state,
                with_spread(results[f"{NEW}, {state}"], digits=1),
                with_spread(
                    ratios(results[f"{NEW}, {state}"], results[f"{NEW}, empty"]),
                    digits=2,
                    unit=" x",
                ),
                with_spread(results[f"{REPEATED}, {state}"], digits=1),
            ]
            for state in STATES
        ],
    )
    tables += f"\nOpening the full store took {with_spread(results['opening, s'], digits=2)} s.\n"
    return Answer({"rounds": rounds, "stored": stored, "found": results}, tables)


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]))))
