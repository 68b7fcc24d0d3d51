import assert from "node:assert/strict";
import { test } from "node:test";
import type { Heatmap, Plane, Step } from "../src/answers.ts";
import { upperBound } from "../src/buckets.ts";
import { csv, type DisplayList, logTicks, ticks } from "../src/display.ts";
import { distributionShapes, mirrored } from "../src/distribution.ts";
import { boxOf, cellAt, gridOf, heatmapShapes, heatmapTable, percentilePoints, selectionOf } from "../src/heatmap.ts";
import { columnLanes, formatInterval, gpuLanes, parseInterval, stepAt, stepLanes, stepsOf } from "../src/lanes.ts";
import { planeShapes, planeTable } from "../src/plane.ts";
import { sparkline } from "../src/sparkline.ts";
import { formatTargets, parseTargets } from "../src/targets.ts";
import { svg } from "../src/svg.ts";

const SINCE = "2026-01-31T12:00:00.000000000Z";
const SIZE = { width: 1_000, height: 300 };

function heatmap(): Heatmap {
  const columns = [0, 1, 5].map((index) => ({
    index, time: SINCE, cells: [[200, 3, 0], [210, 9, 2]] as [number, number, number][], p50: 40, p95: 70, p99: 79,
  }));
  return {
    value: "duration_ms", unit: "ms", per_unit: 1_000_000, counted: { spans: "requests", operation: null, since: SINCE, until: SINCE },
    column_seconds: 10, column_count: 60, total: 36, error_count: 6, without_value: 0, columns,
  };
}

/** Everything that is drawn lies within the picture, and is a number. */
function isSound(list: DisplayList): void {
  for (const shape of list.shapes) {
    const numbers = shape.kind === "line" ? shape.points.flat() : [shape.x, shape.y];
    for (const number of numbers) {
      assert.ok(Number.isFinite(number), JSON.stringify(shape));
    }
    if (shape.kind === "rect") {
      assert.ok(shape.width > 0 && shape.height > 0, JSON.stringify(shape));
      assert.ok(shape.x >= -0.01 && shape.x + shape.width <= list.width + 1.01, JSON.stringify(shape));
      assert.ok(shape.y >= -0.01 && shape.y + shape.height <= list.height + 1.01, JSON.stringify(shape));
    }
  }
}

test("each cell of the heatmap is drawn once, and errors are hatched", () => {
  const answer = heatmap();
  const grid = gridOf(answer, SIZE);
  const counts = heatmapShapes(answer, grid, "count", undefined, undefined);
  isSound(counts);
  assert.equal(counts.shapes.filter((shape) => shape.kind === "rect").length, 6);
  const errors = heatmapShapes(answer, grid, "errors", undefined, undefined);
  assert.equal(errors.shapes.filter((shape) => shape.kind === "rect" && shape.hatch).length, 3);
  assert.equal(heatmapTable(answer).rows.length, 6);
});

test("a target is a line at its value", () => {
  const answer = heatmap();
  const list = heatmapShapes(answer, gridOf(answer, SIZE), "count", undefined, undefined, 60);
  isSound(list);
  assert.equal(list.shapes.filter((shape) => shape.kind === "line" && shape.stroke === "good").length, 1);
  assert.deepEqual([...parseTargets("duration_ms:5,evil:1,queue_wait_time_ms:-1,x")], [["duration_ms", "5"]]);
  assert.deepEqual(parseTargets(formatTargets(new Map([["duration_ms", "1.5"]]))).get("duration_ms"), "1.5");
  assert.equal(parseTargets(formatTargets(new Map())).size, 0);
});

test("few spans share a point of a percentile line", () => {
  const few = percentilePoints(heatmap(), 1e6);
  assert.equal(few.length, 30);
  assert.deepEqual(few.map((point) => point !== undefined).slice(0, 4), [true, false, true, false]);
  const [first] = few;
  assert.equal(first?.place, 1);
  assert.ok(first && first.p50 < first.p95 && first.p95 < first.p99);
});

test("no percentile line crosses a time without spans", () => {
  const many = (spans: number): [number, number, number][] => [[200, spans, 0], [210, 3 * spans, 2]];
  const answer = { ...heatmap(), total: 360, columns: heatmap().columns.map((column) => ({ ...column, cells: many(30) })) };
  const list = heatmapShapes(answer, gridOf(answer, SIZE), "count", undefined, undefined);
  const lines = list.shapes.filter((shape) => shape.kind === "line" && shape.stroke === "ink");
  assert.equal(lines.length, 3);
  for (const line of lines) {
    assert.ok(line.kind === "line" && line.points.length === 2);
  }
});

test("a box is the selection of its cells, and the other way round", () => {
  const grid = gridOf(heatmap(), SIZE);
  for (const box of [
    { firstColumn: 0, lastColumn: 59, firstBucket: grid.lowest, lastBucket: grid.highest },
    { firstColumn: 3, lastColumn: 3, firstBucket: 205, lastBucket: 210 },
  ]) {
    const selection = selectionOf(grid, box);
    assert.deepEqual(boxOf(grid, selection), box);
    assert.ok(selection.least * 1e6 > upperBound(box.firstBucket - 1));
    assert.equal(selection.most, upperBound(box.lastBucket) / 1e6);
  }
  const corner = cellAt(grid, 0, 0);
  assert.deepEqual(corner, { column: 0, bucket: grid.highest });
  assert.deepEqual(cellAt(grid, 5_000, 5_000), { column: 59, bucket: grid.lowest });
});

test("a heatmap of nothing can be drawn", () => {
  const answer = { ...heatmap(), columns: [], total: 0 };
  isSound(heatmapShapes(answer, gridOf(answer, SIZE), "count", undefined, undefined));
});

test("steps lie in the lane of their engine, and the pointer finds them", () => {
  const steps: Step[] = [1, 2, 3].map((index) => ({
    trace_id: "t", span_id: `s${index}`, step_index: index, engine: index < 3 ? "0" : "1", start_time: `2026-01-31T12:00:0${index}.000000000Z`,
    duration_ms: 500, batch_fill_ratio: 0.5, prefill_tokens: 10, decode_tokens: 30, queue_depth: index, model_name: "m",
  }));
  const range = { sinceMs: Date.parse("2026-01-31T12:00:00Z"), untilMs: Date.parse("2026-01-31T12:00:10Z") };
  const { list, placed } = stepLanes(steps, range, 1_000, new Set(["s2"]));
  isSound(list);
  assert.equal(new Set(placed.map((each) => each.top)).size, 2);
  for (const each of placed) {
    assert.equal(stepAt(placed, each.x + each.width / 2, each.top + 50), each.step);
  }
  assert.equal(stepAt(placed, 999, 5), undefined);
  assert.equal(list.shapes.filter((shape) => shape.kind === "rect" && shape.fill === "highlight").length, 1);
  isSound(columnLanes([{ time: SINCE, step_count: 2, mean_ms: 3, longest_ms: 4, prefill_share: 0.5, queue_depth: 1 }], 1_000, range, 1_000));
});

test("the steps of a request are those of its engine and process, from its first to its last one", () => {
  const step = (index: number, engine: string, producer: string): Step => ({
    trace_id: "t", span_id: `${engine}${producer}${index}`, step_index: index, engine, producer_id: producer, start_time: SINCE, duration_ms: 1,
  });
  const steps = [step(1, "a~b", "p"), step(2, "a~b", "p"), step(3, "a~b", "p"), step(2, "a~b", "q"), step(2, "c", "p")];
  const interval = parseInterval(formatInterval({ engine: "a~b", producer: "p", first: 2, last: 3 }));
  assert.ok(interval);
  assert.deepEqual([...stepsOf(steps, interval)], ["a~bp2", "a~bp3"]);
  for (const text of ["", "x~y~p~0", "3~2~p~0", "1"]) {
    assert.equal(parseInterval(text), undefined);
  }
});

test("where a GPU was not read there is a gap", () => {
  const reading = (mean: number) => ({ count: 1, mean, max: mean });
  const range = { sinceMs: Date.parse(SINCE), untilMs: Date.parse(SINCE) + 100_000 };
  const column = (second: number) => ({
    time: new Date(range.sinceMs + second * 1_000).toISOString(), count: 1, gpu_utilization_percent: reading(0),
  });
  const list = gpuLanes({ column_seconds: 1, total: 4, device_count: 1, devices: [{ gpu_device_id: "GPU", columns: [0, 1, 50, 51].map(column) }] }, range, 800);
  isSound(list);
  const lines = list.shapes.filter((shape) => shape.kind === "line" && shape.stroke === "accent");
  assert.equal(lines.length, 2);
});

test("distributions, in each form, of something and of nothing", () => {
  const curves = [{ name: "now", ink: "selected" as const, counts: new Map([[200, 50], [210, 50], [250, 1]]) }];
  for (const form of ["cdf", "histogram", "percentiles"] as const) {
    isSound(distributionShapes(curves, form, "ms", 1e6, SIZE));
    isSound(distributionShapes([], form, "ms", 1e6, SIZE));
  }
  isSound(mirrored([[1, 2], [3, 4]], [[2, 5]], { width: 100, height: 40 }));
  isSound(sparkline([0, 5, 2], [0, 1, 0], { width: 90, height: 20 }));
});

test("one number over another, of something and of nothing", () => {
  const cells = [[-2, 1, 0], [200, 3, 0], [210, 9, 2]] as [number, number, number][];
  const some: Plane = {
    ...heatmap(), by: "input_tokens", by_unit: "tokens", by_per_unit: 1,
    columns: [-2, 40, 70].map((bucket) => ({ bucket, cells, p50: 1, p95: 2 })),
  };
  const list = planeShapes(some, SIZE);
  isSound(list);
  assert.equal(list.shapes.filter((shape) => shape.kind === "rect").length, 9);
  assert.equal(planeTable(some).rows.length, 9);
  isSound(planeShapes({ ...some, columns: [], total: 0 }, SIZE));
});

test("an SVG says what it shows, and the text of spans stays text", () => {
  const list: DisplayList = { ...SIZE, shapes: [{ kind: "text", x: 1, y: 2, text: '<script>"&', fill: "ink" }] };
  const text = svg(list, "a <title>", ["n = 5", "complete"]);
  assert.ok(text.includes("&lt;script&gt;&quot;&amp;"));
  assert.ok(text.includes("n = 5") && text.includes("complete") && text.includes("a &lt;title&gt;"));
  assert.ok(!text.includes("<script>"));
});

test("a CSV is no formula", () => {
  assert.equal(csv({ head: ["a", "b"], rows: [["=1+1", -5], ['x,"y"', 2.5]] }), 'a,b\r\n\'=1+1,-5\r\n"x,""y""",2.5');
});

test("axes", () => {
  assert.deepEqual(ticks(0, 10, 5), [0, 2, 4, 6, 8, 10]);
  assert.deepEqual(logTicks(1, 1_000, 4), [1, 10, 100, 1_000]);
  assert.deepEqual(logTicks(0.9, 6, 5), [1, 2, 5]);
});
