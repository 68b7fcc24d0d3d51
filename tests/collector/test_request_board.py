"""The board for Grafana's Infinity data source asks what the collector answers."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from collector_client import Client, NewSpan

BOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "requests.json"
MODEL = "org/llama 3"
KINDS: dict[str, Any] = {"string": str, "timestamp": str, "number": (int, float)}


def targets() -> list[Any]:
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    asked = [target for panel in board["panels"] for target in panel["targets"]]
    variables = [variable["query"] for variable in board["templating"]["list"]]
    return [*asked, *(query["infinityQuery"] for query in variables if isinstance(query, dict))]


@pytest.mark.parametrize("target", targets(), ids=lambda target: target["url"].partition("?")[0])
def test_each_column_is_answered(client: Client, new_span: NewSpan, target: Any) -> None:
    client.send(
        new_span(model=MODEL), producer_id=b"p" * 16, first_span_sequence=1, produced_count=1
    )
    now_s = int(time.time())
    values = {
        "${__from:date:seconds}": str(now_s - 600),
        "${__to:date:seconds}": str(now_s + 1),
        "${model:percentencode}": quote(MODEL, safe=""),
    }
    url = re.sub(r"\$\{[^}]*\}", lambda variable: values[variable[0]], target["url"])
    answer = client.http.get(url)
    assert answer.status_code == 200, answer.text
    rows = answer.json()[target["root_selector"]] if target["root_selector"] else answer.json()
    assert rows
    for column in target["columns"]:
        assert isinstance(rows[0][column["selector"]], KINDS[column["type"]]), column
        if column["type"] == "timestamp":
            assert re.fullmatch(r"[\d-]{10}T[\d:.]+Z", rows[0][column["selector"]])
