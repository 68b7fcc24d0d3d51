import assert from "node:assert/strict";
import { test } from "node:test";
import type { Producer, Span, Trace } from "../src/answers.ts";
import { completenessOf, totalsOf } from "../src/ledger.ts";
import { phasesOf } from "../src/phases.ts";
import { windowOf } from "../src/rows.ts";
import { axisOf, axisTicks, gapsOf, shownRows, treeOf } from "../src/waterfall.ts";

function span(id: string, parent: string | undefined, startMs: number, durationMs: number, more: object = {}): Span {
  const start = new Date(Date.parse("2026-01-31T12:00:00Z") + startMs).toISOString();
  return {
    trace_id: "t", span_id: id, start_time: start, duration_ms: durationMs, status: "OK", operation_name: id,
    ...(parent === undefined ? {} : { parent_span_id: parent }), ...more,
  };
}

function trace(...spans: Span[]): Trace {
  return { trace_id: "t", spans };
}

test("children stand below their parent, in the order of their start", () => {
  const tree = treeOf(trace(span("b", "root", 50, 10), span("root", undefined, 0, 100), span("a", "root", 10, 30), span("c", "a", 20, 5)));
  assert.deepEqual(tree.nodes.map((node) => [node.span.span_id, node.depth]), [["root", 0], ["a", 1], ["c", 2], ["b", 1]]);
  assert.equal(tree.nodes[0]?.descendants, 3);
  assert.equal(tree.lengthMs, 100);
});

test("a circle of parents, and a parent that is missing, lose no span", () => {
  const tree = treeOf(trace(span("a", "b", 0, 1), span("b", "a", 0, 1), span("c", "gone", 0, 1), span("d", "d", 0, 1)));
  assert.deepEqual(new Set(tree.nodes.map((node) => node.span.span_id)), new Set(["a", "b", "c", "d"]));
});

test("the critical path is what the end waited for", () => {
  const tree = treeOf(trace(
    span("root", undefined, 0, 100), span("first", "root", 0, 40), span("beside", "root", 0, 35), span("last", "root", 40, 60), span("in", "last", 45, 20),
  ));
  const critical = tree.nodes.filter((node) => node.isCritical).map((node) => node.span.span_id);
  assert.deepEqual(critical, ["root", "first", "last", "in"]);
});

test("folding, searching, and what is short", () => {
  const tree = treeOf(trace(span("root", undefined, 0, 100), span("a", "root", 0, 50), span("needle", "a", 0, 1), span("b", "root", 50, 40)));
  const names = (rows: number[]): (string | undefined)[] => rows.map((row) => tree.nodes[row]?.span.span_id);
  assert.deepEqual(names(shownRows(tree, new Set(["a"]), "", 0)), ["root", "a", "b"]);
  assert.deepEqual(names(shownRows(tree, new Set(), "NEEDLE", 0)), ["root", "a", "needle"]);
  assert.deepEqual(names(shownRows(tree, new Set(), "", 10)), ["root", "a", "b"]);
});

test("a gap is folded, and time still runs forward", () => {
  const tree = treeOf(trace(span("root", undefined, 0, 1_000), span("a", "root", 0, 10), span("b", "root", 900, 100)));
  const gaps = gapsOf(tree, 0.1);
  assert.deepEqual(gaps, [[10, 900]]);
  const axis = axisOf(tree.lengthMs, gaps, 0.02);
  const places = [0, 5, 10, 400, 900, 950, 1_000].map(axis);
  assert.deepEqual([...places].sort((one, other) => one - other), places);
  assert.equal(places[0], 0);
  assert.ok(Math.abs((places.at(-1) ?? 0) - 1) < 1e-9);
  assert.ok((places[4] ?? 0) - (places[2] ?? 0) < 0.021);
});

test("a request that decodes is no gap, and ticks of an axis leave room for each other", () => {
  const request = { time_to_first_token_ms: 5 };
  const tree = treeOf(trace(span("root", undefined, 0, 1_000, request), span("a", "root", 0, 10), span("b", "root", 900, 100)));
  assert.deepEqual(gapsOf(tree, 0.1), []);
  const plain = (ms: number): number => ms / 1_000;
  assert.deepEqual(axisTicks(1_000, plain), [0, 250, 500, 750, 1_000]);
  assert.deepEqual(axisTicks(1_000, axisOf(1_000, [[10, 900]], 0.02)), [0, 1_000]);
});

test("ten thousand spans make few rows", () => {
  const many = Array.from({ length: 10_000 }, (_, place) => span(`s${place}`, place ? "s0" : undefined, place, 1));
  const tree = treeOf(trace(...many));
  assert.equal(tree.nodes.length, 10_000);
  const { first, end } = windowOf(10_000, 24, 120_000, 560, 8);
  assert.ok(end - first <= 45 && first > 4_900);
  assert.deepEqual(windowOf(0, 24, 0, 560, 8), { first: 0, end: 0 });
});

test("the queue is drawn only where a span places it", () => {
  assert.deepEqual(phasesOf(span("a", undefined, 0, 100, { queue_wait_time_ms: 50 })), [{ name: "work", fromMs: 0, toMs: 100 }]);
  assert.deepEqual(
    phasesOf(span("a", undefined, 0, 100, { scheduled_after_ms: 20, time_to_first_token_ms: 30 })).map(({ name, fromMs, toMs }) => [name, fromMs, toMs]),
    [["queue", 0, 20], ["prefill", 20, 30], ["decode", 30, 100]],
  );
  const odd = phasesOf(span("a", undefined, 0, 100, { scheduled_after_ms: 500, time_to_first_token_ms: 30 }));
  assert.ok(odd.every(({ fromMs, toMs }) => fromMs < toMs && toMs <= 100));
});

test("produced is stored, pending and dropped", () => {
  const producer = (more: Partial<Producer>): Producer => ({
    producer_id: "p", service_name: "s", numbered: true, state: "active", produced: 100, stored: 90, pending: 4, dropped: { buffer_full: 6 },
    rejected: 0, duplicates: 0, gaps: [], completeness: 0.9, complete: false, first_seen: "2026-01-31T12:00:00Z", last_seen: "2026-01-31T13:00:00Z", ...more,
  });
  const unnumbered = producer({ numbered: false, produced: null, pending: null, dropped: null, gaps: null, stored: 7 });
  const totals = totalsOf({ producers: [producer({}), producer({ produced: 0, stored: 5, pending: 0, dropped: {} }), unnumbered] });
  assert.equal(totals.produced, totals.stored + totals.pending + totals.dropped);
  assert.deepEqual([totals.produced, totals.dropped, totals.unnumbered], [105, 6, 7]);
  const at = Date.parse("2026-01-31T12:30:00Z");
  const range = { sinceMs: at, untilMs: at + 1_000 };
  assert.match(completenessOf({ producers: [producer({})] }, range), /^incomplete: 1 producer with 10 spans/);
  assert.equal(completenessOf({ producers: [producer({ produced: 90, pending: 0, dropped: {} }), unnumbered] }, range), "complete");
  assert.match(completenessOf({ producers: [unnumbered] }, range), /not known/);
  assert.match(completenessOf({ producers: [] }, range), /not known/);
});
