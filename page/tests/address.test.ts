import assert from "node:assert/strict";
import { test } from "node:test";
import { type Address, durationText, formatAddress, parseAddress, VIEWS, withFilter } from "../src/address.ts";
import { parseDuration } from "../src/time.ts";

test("what an address says is what it was made of", () => {
  for (const view of VIEWS) {
    const address: Address = {
      view,
      range: { sinceMs: 1_700_000_000_000.25, untilMs: 1_700_000_360_000 },
      filters: [["model", "a/b & é"], ["tag.te.nant", "x=y"], ["min_duration_ms", "0.5"]],
      selection: { sinceMs: 1_700_000_001_000, untilMs: 1_700_000_002_000, least: 12.25, most: undefined },
      settings: { value: "queue_wait_time_ms", order: "start" },
    };
    assert.deepEqual(parseAddress(formatAddress(address)), address);
  }
});

test("an address without anything, and one with nonsense, is the overview of an hour", () => {
  const usual = parseAddress("");
  assert.deepEqual(usual, { view: "overview", range: { lastMs: 3_600_000 }, filters: [], selection: undefined, settings: {} });
  assert.deepEqual(parseAddress("?view=x&since=5&until=1&box=1~2&last=zz&f.evil=1&token=secret&evil=2"), usual);
  assert.equal(parseAddress("?box=5~1~~").selection, undefined);
  assert.equal(parseAddress("?box=a~b~c~d").selection, undefined);
});

test("durations", () => {
  for (const text of ["5m", "1h", "2d", "90s", "1500ms"]) {
    assert.equal(durationText(parseDuration(text) ?? 0), text);
  }
  assert.equal(parseDuration("1y"), undefined);
});

test("a filter takes the place of another one of its name", () => {
  assert.deepEqual(withFilter([["model", "a"], ["status", "OK"]], "model", "b"), [["status", "OK"], ["model", "b"]]);
});
