// Distributions: cumulated shares, histograms, and percentiles on an axis that spreads out the tail.

import { type Histogram, quantile, upperBound, ZERO_BUCKET } from "./buckets.ts";
import { type DisplayList, type Ink, logTicks, type Shape, type Size, type Table } from "./display.ts";
import { amount, share } from "./format.ts";

export type Curve = { readonly name: string; readonly ink: Ink; readonly dashed?: boolean; readonly counts: Histogram };
export type Form = "cdf" | "histogram" | "percentiles";

const LEFT = 64;
const RIGHT = 12;
const TOP = 8;
const BOTTOM = 22;

function bounds(curves: readonly Curve[]): [number, number] {
  const buckets = curves.flatMap((curve) => [...curve.counts.keys()]);
  const least = buckets.reduce((one, other) => Math.min(one, other), Number.POSITIVE_INFINITY);
  const most = buckets.reduce((one, other) => Math.max(one, other), Number.NEGATIVE_INFINITY);
  return least <= most ? [Math.max(ZERO_BUCKET + 1, least) - 1, most] : [0, 24];
}

function totalOf(counts: Histogram): number {
  return [...counts.values()].reduce((one, other) => one + other, 0);
}

export function distributionShapes(curves: readonly Curve[], form: Form, unit: string, perUnit: number, size: Size): DisplayList {
  const [low, high] = bounds(curves);
  const [left, right, bottom] = [LEFT, size.width - RIGHT, size.height - BOTTOM];
  const valuePlace = (value: number): number =>
    value > 0 ? (Math.log2(value) * 8 - 1 - low) / Math.max(1, high - low) : 0;
  if (form === "percentiles") {
    return percentileShapes(curves, unit, perUnit, size, valuePlace);
  }
  const x = (place: number): number => left + Math.max(0, Math.min(1, place)) * (right - left);
  const shapes: Shape[] = [];
  const from = Math.max(upperBound(low), 1e-9) / perUnit;
  for (const tick of logTicks(from, upperBound(high) / perUnit, size.width / 80)) {
    const at = x(valuePlace(tick * perUnit));
    shapes.push({ kind: "line", points: [[at, TOP], [at, bottom]], stroke: "grid" });
    shapes.push({ kind: "text", x: at, y: bottom + 12, text: amount(tick, unit), fill: "muted", align: "center" });
  }
  let most = 1;
  if (form === "histogram") {
    most = curves.reduce((peak, curve) => {
      const total = totalOf(curve.counts) || 1;
      return Math.max(peak, ...[...curve.counts.values()].map((each) => each / total));
    }, 1e-9);
  }
  const y = (value: number): number => bottom - (value / most) * (bottom - TOP);
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    shapes.push({ kind: "line", points: [[left, y(tick * most)], [right, y(tick * most)]], stroke: "grid" });
    shapes.push({ kind: "text", x: left - 6, y: y(tick * most), text: share(tick * most), fill: "muted", align: "right" });
  }
  for (const curve of curves) {
    const total = totalOf(curve.counts) || 1;
    const points: [number, number][] = [];
    let below = 0;
    for (let bucket = low; bucket <= high; bucket += 1) {
      const found = curve.counts.get(bucket) ?? 0;
      below += found;
      const value = form === "cdf" ? below / total : found / total;
      if (form === "histogram") {
        points.push([x((bucket - 1 - low) / (high - low)), y(value)]);
      }
      points.push([x((bucket - low) / (high - low)), y(value)]);
    }
    shapes.push({ kind: "line", points, stroke: curve.ink, width: 1.75, dashed: curve.dashed ?? false });
  }
  return { ...size, shapes };
}

const SHARES = [0, 0.5, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999];

/** Value over share, with the share on a logarithmic axis of what is left, as HdrHistogram draws it. */
function percentileShapes(
  curves: readonly Curve[], unit: string, perUnit: number, size: Size, valuePlace: (value: number) => number,
): DisplayList {
  const [left, right, bottom] = [LEFT, size.width - RIGHT, size.height - BOTTOM];
  // A share that fewer than one of all spans is beyond says nothing.
  const largest = curves.reduce((most, curve) => Math.max(most, totalOf(curve.counts)), 1);
  const furthest = Math.max(1, Math.log10(largest));
  const x = (of: number): number => left + (Math.min(furthest, -Math.log10(1 - of)) / furthest) * (right - left);
  const y = (value: number): number => bottom - Math.max(0, Math.min(1, valuePlace(value))) * (bottom - TOP);
  const shapes: Shape[] = [];
  for (const tick of SHARES.filter((each) => 1 - each >= 1 / largest)) {
    shapes.push({ kind: "line", points: [[x(tick), TOP], [x(tick), bottom]], stroke: "grid" });
    shapes.push({ kind: "text", x: x(tick), y: bottom + 12, text: `p${Number((tick * 100).toFixed(2))}`, fill: "muted", align: "center" });
  }
  const [low, high] = bounds(curves);
  for (const tick of logTicks(Math.max(upperBound(low), 1e-9) / perUnit, upperBound(high) / perUnit, size.height / 24)) {
    shapes.push({ kind: "line", points: [[left, y(tick * perUnit)], [right, y(tick * perUnit)]], stroke: "grid" });
    shapes.push({ kind: "text", x: left - 6, y: y(tick * perUnit), text: amount(tick, unit), fill: "muted", align: "right" });
  }
  for (const curve of curves) {
    const points: [number, number][] = [];
    const total = totalOf(curve.counts);
    const end = Math.log10(Math.max(2, total));
    for (let step = 0; total && step <= 120; step += 1) {
      const of = 1 - 10 ** ((-step / 120) * end);
      points.push([x(of), y(quantile(curve.counts, of) ?? 0)]);
    }
    shapes.push({ kind: "line", points, stroke: curve.ink, width: 1.75, dashed: curve.dashed ?? false });
  }
  return { ...size, shapes };
}

export function distributionTable(curves: readonly Curve[], unit: string, perUnit: number): Table {
  const buckets = [...new Set(curves.flatMap((curve) => [...curve.counts.keys()]))].sort((one, other) => one - other);
  return {
    head: [`at most (${unit})`, ...curves.map((curve) => `spans, ${curve.name}`)],
    rows: buckets.map((bucket) => [
      Number((upperBound(bucket) / perUnit).toPrecision(6)),
      ...curves.map((curve) => curve.counts.get(bucket) ?? 0),
    ]),
  };
}

/** Two histograms of a comparison, one above the line and one below it. */
export function mirrored(
  one: readonly (readonly [number, number])[], other: readonly (readonly [number, number])[], size: Size,
): DisplayList {
  const all = [...one, ...other];
  const low = all.reduce((least, [bucket]) => Math.min(least, bucket), Number.POSITIVE_INFINITY);
  const high = all.reduce((most, [bucket]) => Math.max(most, bucket), Number.NEGATIVE_INFINITY);
  const width = size.width / Math.max(1, high - low + 1);
  const middle = size.height / 2;
  const shapes: Shape[] = [];
  for (const [cells, fill, direction] of [[one, "selected", -1], [other, "baseline", 1]] as const) {
    const total = cells.reduce((sum, [, found]) => sum + found, 0) || 1;
    const peak = cells.reduce((most, [, found]) => Math.max(most, found / total), 0) || 1;
    for (const [bucket, found] of cells) {
      const height = Math.max(1, (found / total / peak) * (middle - 1));
      shapes.push({
        kind: "rect", x: (bucket - low) * width, y: direction < 0 ? middle - height : middle + 1,
        width: Math.max(1, width - 0.5), height, fill,
      });
    }
  }
  shapes.push({ kind: "line", points: [[0, middle + 0.5], [size.width, middle + 0.5]], stroke: "faint" });
  return { ...size, shapes };
}
