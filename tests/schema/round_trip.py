"""Reads a full batch with whatever protobuf runtime runs this, and prints it serialized.

Run by test_runtime_range.py on the runtimes at both ends of the range that is allowed.
"""

import sys
from pathlib import Path

import google.protobuf
from google.protobuf import json_format
from google.protobuf.internal import api_implementation

from infertrace.generated.span_pb2 import SendSpanBatchRequest

text = Path(sys.argv[1]).read_text(encoding="utf-8")
batch = json_format.Parse(text, SendSpanBatchRequest())
data = batch.SerializeToString(deterministic=True)
assert SendSpanBatchRequest.FromString(data) == batch
print(google.protobuf.__version__, api_implementation.Type(), data.hex())
