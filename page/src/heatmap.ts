// The heatmap: cells of time and value, the percentiles of the same cells, and the box around some.

import type { Heatmap, HeatmapColumn } from "./answers.ts";
import { merged, quantile, upperBound, ZERO_BUCKET } from "./buckets.ts";
import { type DisplayList, logTicks, type Shape, type Size, type Table } from "./display.ts";
import { amount, count } from "./format.ts";
import { clock, parseTime, type Range, timeTicks } from "./time.ts";

export const LEFT = 64;
const RIGHT = 30; // for the names of the percentiles
const TOP = 6;
const BOTTOM = 20;
const FEWEST_BUCKETS = 24;

/** Columns and rows of cells, both included; rows count from the lowest bucket up. */
export type Box = {
  readonly firstColumn: number;
  readonly lastColumn: number;
  readonly firstBucket: number;
  readonly lastBucket: number;
};

export type Grid = {
  readonly range: Range;
  readonly columnMs: number;
  readonly columns: number;
  readonly lowest: number;
  readonly highest: number;
  readonly size: Size;
  readonly cellWidth: number;
  readonly cellHeight: number;
  readonly perUnit: number;
};

export function gridOf(answer: Heatmap, size: Size): Grid {
  const sinceMs = parseTime(answer.counted.since);
  const columnMs = answer.column_seconds * 1_000;
  let [lowest, highest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const column of answer.columns) {
    for (const [bucket] of column.cells) {
      lowest = Math.min(lowest, bucket);
      highest = Math.max(highest, bucket);
    }
  }
  if (lowest > highest) {
    [lowest, highest] = [0, FEWEST_BUCKETS];
  }
  const missing = Math.max(0, FEWEST_BUCKETS - (highest - lowest + 1));
  lowest = Math.max(ZERO_BUCKET, lowest - 1 - Math.floor(missing / 2));
  highest += 1 + Math.ceil(missing / 2);
  return {
    range: { sinceMs, untilMs: sinceMs + columnMs * answer.column_count },
    columnMs,
    columns: answer.column_count,
    lowest,
    highest,
    size,
    cellWidth: (size.width - LEFT - RIGHT) / answer.column_count,
    cellHeight: (size.height - TOP - BOTTOM) / (highest - lowest + 1),
    perUnit: answer.per_unit,
  };
}

function columnX(grid: Grid, column: number): number {
  return LEFT + column * grid.cellWidth;
}

/** The top of a bucket's row. */
function bucketY(grid: Grid, bucket: number): number {
  return TOP + (grid.highest - bucket) * grid.cellHeight;
}

function valueY(grid: Grid, value: number): number {
  const scaled = value * grid.perUnit;
  const place = scaled > 0 ? Math.log2(scaled) * 8 - 1 : grid.lowest;
  const y = TOP + (grid.highest - place) * grid.cellHeight;
  return Math.max(TOP, Math.min(grid.size.height - BOTTOM, y));
}

export function cellAt(grid: Grid, x: number, y: number): { column: number; bucket: number } {
  const column = Math.floor((x - LEFT) / grid.cellWidth);
  const bucket = grid.highest - Math.floor((y - TOP) / grid.cellHeight);
  return {
    column: Math.max(0, Math.min(grid.columns - 1, column)),
    bucket: Math.max(grid.lowest, Math.min(grid.highest, bucket)),
  };
}

/** A box as what the API is asked for: a time, and values of which the lowest is not included. */
export function selectionOf(grid: Grid, box: Box): { sinceMs: number; untilMs: number; least: number; most: number } {
  return {
    sinceMs: grid.range.sinceMs + box.firstColumn * grid.columnMs,
    untilMs: grid.range.sinceMs + (box.lastColumn + 1) * grid.columnMs,
    // Just above the bound, which belongs to the bucket below.
    least: box.firstBucket <= ZERO_BUCKET ? 0 : (upperBound(box.firstBucket - 1) * (1 + 1e-9)) / grid.perUnit,
    most: upperBound(box.lastBucket) / grid.perUnit,
  };
}

export function boxOf(
  grid: Grid,
  selection: { sinceMs: number; untilMs: number; least: number | undefined; most: number | undefined },
): Box | undefined {
  const first = Math.floor((selection.sinceMs - grid.range.sinceMs) / grid.columnMs + 1e-6);
  const last = Math.ceil((selection.untilMs - grid.range.sinceMs) / grid.columnMs - 1e-6) - 1;
  if (last < 0 || first >= grid.columns) {
    return undefined;
  }
  // The lowest value is just above the bound of a bucket, the highest one is a bound itself.
  const bucket = (value: number | undefined, open: number, place: (exact: number) => number): number =>
    value === undefined ? open : value <= 0 ? ZERO_BUCKET : place(Math.log2(value * grid.perUnit) * 8);
  return {
    firstColumn: Math.max(0, first),
    lastColumn: Math.min(grid.columns - 1, last),
    firstBucket: Math.max(grid.lowest, bucket(selection.least, grid.lowest, (exact) => Math.floor(exact + 1e-9))),
    lastBucket: Math.min(grid.highest, bucket(selection.most, grid.highest, (exact) => Math.ceil(exact - 1e-7) - 1)),
  };
}

export type Mode = "count" | "errors";

export function heatmapShapes(
  answer: Heatmap,
  grid: Grid,
  mode: Mode,
  box: Box | undefined,
  cursor: { column: number; bucket: number } | undefined,
  target?: number,
): DisplayList {
  const shapes: Shape[] = [...axes(grid, answer.unit)];
  let most = 1;
  for (const column of answer.columns) {
    for (const [, spans] of column.cells) {
      most = Math.max(most, spans);
    }
  }
  const gap = grid.cellWidth > 6 ? 1 : 0;
  for (const column of answer.columns) {
    for (const [bucket, spans, errors] of column.cells) {
      const heat =
        mode === "errors" ? errors / spans : most > 1 ? Math.log(spans) / Math.log(most) : 1;
      shapes.push({
        kind: "rect",
        x: columnX(grid, column.index),
        y: bucketY(grid, bucket),
        width: Math.max(1, grid.cellWidth - gap),
        height: Math.max(1, grid.cellHeight - (grid.cellHeight > 4 ? 1 : 0)),
        fill: { heat: mode === "errors" && errors === 0 ? 0 : 0.1 + 0.9 * heat, of: mode === "errors" ? "error" : "count" },
        ...(mode === "errors" && errors > 0 ? { hatch: true } : {}),
      });
    }
  }
  shapes.push(...percentileLines(answer, grid));
  if (target !== undefined) {
    const y = valueY(grid, target);
    shapes.push({ kind: "line", points: [[LEFT, y], [grid.size.width - RIGHT, y]], stroke: "good", width: 1.5, dashed: true });
    shapes.push({ kind: "text", x: LEFT + 4, y: y - 7, text: `target ${amount(target, answer.unit)}`, fill: "good" });
  }
  if (box) {
    shapes.push({ kind: "frame", ...place(grid, box), stroke: "selected" });
    shapes.push({ kind: "rect", ...place(grid, box), fill: "selected", alpha: 0.08 });
  }
  if (cursor) {
    const one = { firstColumn: cursor.column, lastColumn: cursor.column, firstBucket: cursor.bucket, lastBucket: cursor.bucket };
    shapes.push({ kind: "frame", ...place(grid, one), stroke: "ink" });
  }
  return { ...grid.size, shapes };
}

function place(grid: Grid, box: Box): { x: number; y: number; width: number; height: number } {
  const [x, y] = [columnX(grid, box.firstColumn), bucketY(grid, box.lastBucket)];
  return {
    x,
    y,
    width: columnX(grid, box.lastColumn + 1) - x,
    height: bucketY(grid, box.firstBucket) + grid.cellHeight - y,
  };
}

const ENOUGH = 20; // spans, for a point of a percentile line to be more than chance

export type Point = { readonly place: number; readonly p50: number; readonly p95: number; readonly p99: number };

/** The percentiles along the time, from the cells that are drawn: of each column, or of as many
 * together as most points need to have enough spans. `place` is in columns. Undefined stands where nothing started. */
export function percentilePoints(answer: Heatmap, perUnit: number): (Point | undefined)[] {
  const together = columnsTogether(answer);
  const groups = new Map<number, HeatmapColumn[]>();
  for (const column of answer.columns) {
    const group = Math.floor(column.index / together);
    groups.set(group, [...(groups.get(group) ?? []), column]);
  }
  const points: (Point | undefined)[] = [];
  for (let group = 0; group * together < answer.column_count; group += 1) {
    const columns = groups.get(group);
    if (!columns) {
      points.push(undefined);
      continue;
    }
    const counts = merged(columns.map((column) => column.cells.map(([bucket, spans]): [number, number] => [bucket, spans])));
    const of = (fraction: number): number => (quantile(counts, fraction) ?? 0) / perUnit;
    const place = columns.reduce((sum, column) => sum + column.index + 0.5, 0) / columns.length;
    points.push({ place, p50: of(0.5), p95: of(0.95), p99: of(0.99) });
  }
  return points;
}

function columnsTogether(answer: Heatmap): number {
  const used = Math.max(1, answer.columns.length);
  let together = 1;
  while (together < answer.column_count / 4 && (answer.total / used) * together < ENOUGH) {
    together *= 2;
  }
  return together;
}

function percentileLines(answer: Heatmap, grid: Grid): Shape[] {
  const points = percentilePoints(answer, grid.perUnit);
  const shapes: Shape[] = [];
  const named: number[] = [];
  for (const [name, dashed] of [["p50", false], ["p95", true], ["p99", true]] as const) {
    let run: [number, number][] = [];
    let last: [number, number] | undefined;
    const end = (): void => {
      if (run.length > 1) {
        // A rim keeps the line apart from dark cells as well as from light ones.
        shapes.push({ kind: "line", points: run, stroke: "ground", width: 3.5 });
        shapes.push({ kind: "line", points: run, stroke: "ink", width: name === "p50" ? 1.75 : 1.25, dashed });
      }
      run = [];
    };
    for (const point of points) {
      // A time without spans is a gap, and no line crosses it.
      if (point) {
        last = [columnX(grid, point.place), valueY(grid, point[name])];
        run.push(last);
      } else {
        end();
      }
    }
    end();
    if (last) {
      // Where two lines lie close to each other, the names make room for each other.
      const y = named.reduce((place, other) => (Math.abs(place - other) < 13 ? other - 13 : place), last[1]);
      named.push(y);
      const x = Math.min(last[0] + 4, grid.size.width - RIGHT + 4);
      shapes.push({ kind: "text", x, y: Math.max(TOP + 4, y), text: name, fill: "muted", size: 10 });
    }
  }
  return shapes;
}

function axes(grid: Grid, unit: string): Shape[] {
  const shapes: Shape[] = [];
  const bottom = grid.size.height - BOTTOM;
  const lowest = Math.max(upperBound(grid.lowest - 1), 1e-6) / grid.perUnit;
  for (const tick of logTicks(lowest, upperBound(grid.highest) / grid.perUnit, grid.size.height / 26)) {
    const y = valueY(grid, tick);
    shapes.push({ kind: "line", points: [[LEFT, y], [grid.size.width - RIGHT, y]], stroke: "grid" });
    shapes.push({ kind: "text", x: LEFT - 6, y, text: amount(tick, unit), fill: "muted", align: "right" });
  }
  const { at, stepMs } = timeTicks(grid.range, grid.size.width / 90);
  for (const tick of at) {
    const x = LEFT + ((tick - grid.range.sinceMs) / grid.columnMs) * grid.cellWidth;
    shapes.push({ kind: "line", points: [[x, bottom], [x, bottom + 4]], stroke: "faint" });
    shapes.push({ kind: "text", x, y: bottom + 12, text: clock(tick, stepMs), fill: "muted", align: "center" });
  }
  return shapes;
}

/** What stands beside the pointer: a cell, and its column. */
export function cellText(answer: Heatmap, grid: Grid, at: { column: number; bucket: number }): string {
  const column = answer.columns.find((each) => each.index === at.column);
  const cell = column?.cells.find(([bucket]) => bucket === at.bucket);
  const inColumn = column?.cells.reduce((sum, [, spans]) => sum + spans, 0) ?? 0;
  const { sinceMs, least, most } = selectionOf(grid, {
    firstColumn: at.column, lastColumn: at.column, firstBucket: at.bucket, lastBucket: at.bucket,
  });
  const values = `${amount(least, answer.unit)} – ${amount(most, answer.unit)}`;
  const when = clock(sinceMs, Math.min(grid.columnMs, 1_000));
  if (!column) {
    return `${when}: nothing`;
  }
  const [, spans, errors] = cell ?? [0, 0, 0];
  const failed = errors ? `, ${count(errors)} failed` : "";
  return `${when} · ${values}: ${count(spans)} of ${count(inColumn)}${failed} · p50 ${amount(column.p50, answer.unit)} · p99 ${amount(column.p99, answer.unit)}`;
}

export function heatmapTable(answer: Heatmap): Table {
  return {
    head: ["time", `more than (${answer.unit})`, `at most (${answer.unit})`, "spans", "errors"],
    rows: answer.columns.flatMap((column) =>
      column.cells.map(([bucket, spans, errors]) => [
        column.time,
        Number((upperBound(bucket - 1) / answer.per_unit).toPrecision(6)),
        Number((upperBound(bucket) / answer.per_unit).toPrecision(6)),
        spans,
        errors,
      ]),
    ),
  };
}
