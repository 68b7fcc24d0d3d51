// One number of requests over another one, both on logarithmic axes, such as the first token over the prompt.

import type { Plane } from "./answers.ts";
import { upperBound, ZERO_BUCKET } from "./buckets.ts";
import { type DisplayList, logTicks, type Shape, type Size, type Table } from "./display.ts";
import { amount, nameOf } from "./format.ts";

const LEFT = 64;
const RIGHT = 30;
const TOP = 8;
const BOTTOM = 34;
const FEWEST = 16; // buckets on an axis

type Axis = { readonly low: number; readonly count: number };

function axisOf(buckets: readonly number[]): Axis {
  const low = buckets.reduce((least, bucket) => Math.min(least, bucket), Number.POSITIVE_INFINITY);
  const high = buckets.reduce((most, bucket) => Math.max(most, bucket), Number.NEGATIVE_INFINITY);
  return low <= high ? { low: Math.max(ZERO_BUCKET, low - 1), count: Math.max(FEWEST, high - low + 3) } : { low: 0, count: FEWEST };
}

export function planeShapes(answer: Plane, size: Size): DisplayList {
  const across = axisOf(answer.columns.map((column) => column.bucket));
  const up = axisOf(answer.columns.flatMap((column) => column.cells.map(([bucket]) => bucket)));
  const [width, height] = [(size.width - LEFT - RIGHT) / across.count, (size.height - TOP - BOTTOM) / up.count];
  const x = (place: number): number => LEFT + (place - across.low) * width;
  const y = (place: number): number => TOP + (up.count - (place - up.low)) * height;
  // Where a value lies among buckets, each of which begins at its whole number.
  const placeOf = (value: number): number => (value > 0 ? Math.log2(value) * 8 : 0);
  const shapes: Shape[] = [];
  const within = (axis: Axis, perUnit: number, most: number): number[] =>
    logTicks(Math.max(2 ** (axis.low / 8), 1e-6) / perUnit, 2 ** ((axis.low + axis.count) / 8) / perUnit, most);
  for (const tick of within(across, answer.by_per_unit, size.width / 80)) {
    const at = x(placeOf(tick * answer.by_per_unit));
    shapes.push({ kind: "line", points: [[at, TOP], [at, size.height - BOTTOM]], stroke: "grid" });
    shapes.push({ kind: "text", x: at, y: size.height - BOTTOM + 11, text: amount(tick, answer.by_unit), fill: "muted", align: "center" });
  }
  for (const tick of within(up, answer.per_unit, size.height / 26)) {
    const at = y(placeOf(tick * answer.per_unit));
    shapes.push({ kind: "line", points: [[LEFT, at], [size.width - RIGHT, at]], stroke: "grid" });
    shapes.push({ kind: "text", x: LEFT - 6, y: at, text: amount(tick, answer.unit), fill: "muted", align: "right" });
  }
  shapes.push({ kind: "text", x: size.width - RIGHT, y: size.height - 8, text: nameOf(answer.by), fill: "muted", align: "right" });
  const most = answer.columns.reduce((peak, column) => column.cells.reduce((one, [, spans]) => Math.max(one, spans), peak), 1);
  for (const column of answer.columns) {
    for (const [bucket, spans] of column.cells) {
      shapes.push({
        kind: "rect", x: x(column.bucket), y: y(bucket + 1), width: Math.max(1, width - 0.5), height: Math.max(1, height - 0.5),
        fill: { heat: 0.1 + 0.9 * (most > 1 ? Math.log(spans) / Math.log(most) : 1), of: "count" },
      });
    }
  }
  return { ...size, shapes };
}

export function planeTable(answer: Plane): Table {
  const bound = (bucket: number, perUnit: number): number => Number((upperBound(bucket) / perUnit).toPrecision(6));
  return {
    head: [`${answer.by} at most (${answer.by_unit})`, `${answer.value} at most (${answer.unit})`, "spans", "errors"],
    rows: answer.columns.flatMap((column) =>
      column.cells.map(([bucket, spans, errors]) => [bound(column.bucket, answer.by_per_unit), bound(bucket, answer.per_unit), spans, errors]),
    ),
  };
}
