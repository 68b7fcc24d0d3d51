// Lanes over time: the steps of engines, and what their GPUs did.

import type { Gpus, Reading, Step, StepColumn } from "./answers.ts";
import type { DisplayList, Shape, Table } from "./display.ts";
import { amount, milliseconds, share } from "./format.ts";
import { clock, parseTime, type Range, timeTicks } from "./time.ts";

export const LANE_LEFT = 92;
const RIGHT = 8;
const STEP_HEIGHT = 56;
const LINE_HEIGHT = 28;
const GAP = 14;
const AXIS = 20;

export type PlacedStep = { readonly step: Step; readonly x: number; readonly width: number; readonly top: number };
export type StepLanes = { readonly list: DisplayList; readonly placed: readonly PlacedStep[] };

export function timeX(range: Range, width: number): (ms: number) => number {
  const room = width - LANE_LEFT - RIGHT;
  return (ms) => LANE_LEFT + ((ms - range.sinceMs) / (range.untilMs - range.sinceMs)) * room;
}

export function engineOf(step: Step): string {
  return `${step.model_name ?? "no model"} · ${step.engine}`;
}

/** A lane for each engine of a process: bars by duration, height by fill, colour by the mix. */
export function stepLanes(steps: readonly Step[], range: Range, width: number, lit: ReadonlySet<string>): StepLanes {
  const engines = new Map<string, Step[]>();
  for (const step of steps) {
    const key = `${engineOf(step)}\u0000${step.producer_id ?? ""}`;
    const lane = engines.get(key);
    if (lane) {
      lane.push(step);
    } else {
      engines.set(key, [step]);
    }
  }
  const x = timeX(range, width);
  const shapes: Shape[] = [];
  const placed: PlacedStep[] = [];
  let top = 4;
  for (const key of [...engines.keys()].sort()) {
    const lane = engines.get(key) ?? [];
    shapes.push(...laneName(key.split("\u0000")[0] ?? "", top + STEP_HEIGHT / 2));
    for (const step of lane) {
      const from = parseTime(step.start_time);
      const [left, right] = [Math.max(LANE_LEFT, x(from)), Math.min(width - RIGHT, x(from + step.duration_ms))];
      const bar = { x: left, width: Math.max(1, right - left - (right - left > 3 ? 1 : 0)) };
      placed.push({ step, ...bar, top });
      const fill = Math.max(0.06, step.batch_fill_ratio ?? 1);
      const tokens = (step.prefill_tokens ?? 0) + (step.decode_tokens ?? 0);
      const height = fill * STEP_HEIGHT;
      const prefill = tokens ? ((step.prefill_tokens ?? 0) / tokens) * height : 0;
      const dim = lit.size > 0 && !lit.has(step.span_id) ? { alpha: 0.25 } : {};
      const base = top + STEP_HEIGHT;
      if (prefill > 0) {
        shapes.push({ kind: "rect", ...bar, y: base - height, height: prefill, fill: "prefill", ...dim });
      }
      shapes.push({
        kind: "rect", ...bar, y: base - height + prefill, height: height - prefill,
        fill: tokens ? "decode" : "step", ...dim,
      });
      if (lit.has(step.span_id)) {
        shapes.push({ kind: "rect", ...bar, y: base + 1, height: 2, fill: "highlight" });
      }
    }
    top += STEP_HEIGHT + 6;
    for (const [name, of] of [["queue", "queue_depth"], ["KV cache", "kv_cache_usage"]] as const) {
      const points = lane.flatMap((step): [number, number][] => {
        const value = step[of];
        return value === undefined ? [] : [[parseTime(step.start_time), value]];
      });
      if (points.length) {
        const unit = of === "queue_depth" ? "requests" : "share";
        shapes.push(...lineLane(name, points, range, width, top, unit, unit === "share" ? 1 : undefined, stepGap(lane)));
        top += LINE_HEIGHT + 4;
      }
    }
    top += GAP;
  }
  shapes.push(...timeAxis(range, width, top));
  return { list: { width, height: top + AXIS, shapes }, placed };
}

function stepGap(lane: readonly Step[]): number {
  const longest = lane.reduce((most, step) => Math.max(most, step.duration_ms), 0);
  return Math.max(1_000, 10 * longest);
}

/** Many steps, summed up: a column for each part of the time. */
export function columnLanes(columns: readonly StepColumn[], columnMs: number, range: Range, width: number): DisplayList {
  const x = timeX(range, width);
  const shapes: Shape[] = [...laneName("all steps", 4 + STEP_HEIGHT / 2)];
  const longest = columns.reduce((most, column) => Math.max(most, column.longest_ms), 0) || 1;
  let top = 4;
  for (const column of columns) {
    const from = parseTime(column.time);
    const bar = { x: x(from), width: Math.max(1, x(from + columnMs) - x(from) - 0.5) };
    const height = (column.mean_ms / longest) * STEP_HEIGHT;
    const prefill = (column.prefill_share ?? 0) * height;
    const base = top + STEP_HEIGHT;
    shapes.push({ kind: "rect", ...bar, y: base - height, height: prefill, fill: "prefill" });
    shapes.push({ kind: "rect", ...bar, y: base - height + prefill, height: height - prefill, fill: "decode" });
    const peak = base - (column.longest_ms / longest) * STEP_HEIGHT;
    shapes.push({ kind: "rect", ...bar, y: peak, height: 1, fill: "faint" });
  }
  shapes.push({ kind: "text", x: LANE_LEFT + 2, y: 10, text: `longest ${milliseconds(longest)}`, fill: "muted", size: 10 });
  top += STEP_HEIGHT + 8;
  for (const [name, of, unit] of [
    ["fill", "batch_fill_ratio", "share"],
    ["queue", "queue_depth", "requests"],
    ["KV cache", "kv_cache_usage", "share"],
  ] as const) {
    const points = columns.flatMap((column): [number, number][] => {
      const value = column[of];
      return value === undefined ? [] : [[parseTime(column.time) + columnMs / 2, value]];
    });
    if (points.length) {
      shapes.push(...lineLane(name, points, range, width, top, unit, unit === "share" ? 1 : undefined, columnMs * 1.5));
      top += LINE_HEIGHT + 4;
    }
  }
  shapes.push(...timeAxis(range, width, top));
  return { width, height: top + AXIS, shapes };
}

const READINGS = [
  ["utilisation", "gpu_utilization_percent", "percent"],
  ["memory", "gpu_memory_used_bytes", "bytes"],
  ["power", "gpu_power_watts", "watts"],
  ["temperature", "gpu_temperature_celsius", "degrees"],
] as const;

/** A group of lines for each device; where nothing was read there is a gap, and never a 0. */
export function gpuLanes(gpus: Gpus, range: Range, width: number): DisplayList {
  const shapes: Shape[] = [];
  const columnMs = gpus.column_seconds * 1_000;
  let top = 4;
  for (const device of gpus.devices) {
    shapes.push({ kind: "text", x: 2, y: top + 6, text: clipped(device.gpu_device_id, 60), fill: "ink" });
    top += 16;
    for (const [name, of, unit] of READINGS) {
      const points = device.columns.flatMap((column): [number, number][] => {
        const reading = column[of] as Reading | undefined;
        return reading ? [[parseTime(column.time) + columnMs / 2, reading.mean]] : [];
      });
      if (points.length) {
        const most = unit === "percent" ? 100 : unit === "bytes" ? memoryOf(device.columns) : undefined;
        shapes.push(...lineLane(name, points, range, width, top, unit, most, columnMs * 1.5));
        top += LINE_HEIGHT + 4;
      }
    }
    top += GAP;
  }
  shapes.push(...timeAxis(range, width, top));
  return { width, height: top + AXIS, shapes };
}

function memoryOf(columns: Gpus["devices"][number]["columns"]): number | undefined {
  const totals = columns.map((column) => (column["gpu_memory_total_bytes"] as Reading | undefined)?.max ?? 0);
  return totals.reduce((one, other) => Math.max(one, other), 0) || undefined;
}

export function gpuTable(gpus: Gpus): Table {
  return {
    head: ["device", "time", "spans", ...READINGS.map(([, of]) => `mean ${of}`), ...READINGS.map(([, of]) => `max ${of}`)],
    rows: gpus.devices.flatMap((device) =>
      device.columns.map((column) => {
        const readings = READINGS.map(([, of]) => column[of] as Reading | undefined);
        return [
          device.gpu_device_id, column.time, column.count,
          ...readings.map((reading) => reading?.mean ?? ""), ...readings.map((reading) => reading?.max ?? ""),
        ];
      }),
    ),
  };
}

export function stepTable(steps: readonly Step[]): Table {
  return {
    head: ["model", "engine", "step", "start", "duration (ms)", "batch", "fill", "prefill tokens", "decode tokens", "queue", "KV cache"],
    rows: steps.map((step) => [
      step.model_name ?? "", step.engine, step.step_index, step.start_time, step.duration_ms, step.batch_size ?? "",
      step.batch_fill_ratio ?? "", step.prefill_tokens ?? "", step.decode_tokens ?? "", step.queue_depth ?? "", step.kv_cache_usage ?? "",
    ]),
  };
}

export function columnTable(columns: readonly StepColumn[]): Table {
  return {
    head: ["time", "steps", "mean (ms)", "longest (ms)", "fill", "prefill share", "queue", "KV cache"],
    rows: columns.map((column) => [
      column.time, column.step_count, column.mean_ms, column.longest_ms, column.batch_fill_ratio ?? "",
      column.prefill_share ?? "", column.queue_depth ?? "", column.kv_cache_usage ?? "",
    ]),
  };
}

/** An interval of an engine's steps, as the address has it: those that a request was in. */
export type Interval = { readonly engine: string; readonly producer: string; readonly first: number; readonly last: number };

export function formatInterval({ engine, producer, first, last }: Interval): string {
  return [first, last, producer, engine].join("~");
}

export function parseInterval(text: string): Interval | undefined {
  const [first, last, producer, ...engine] = text.split("~");
  const [from, to] = [Number(first || Number.NaN), Number(last || Number.NaN)];
  return from <= to && producer !== undefined ? { engine: engine.join("~"), producer, first: from, last: to } : undefined;
}

export function stepsOf(steps: readonly Step[], { engine, producer, first, last }: Interval): Set<string> {
  const isIn = (step: Step): boolean =>
    step.engine === engine && (step.producer_id ?? "") === producer && step.step_index >= first && step.step_index <= last;
  return new Set(steps.filter(isIn).map((step) => step.span_id));
}

/** The step under a pointer, or the nearest within some pixels. */
export function stepAt(placed: readonly PlacedStep[], x: number, y: number): Step | undefined {
  let [best, nearest]: [Step | undefined, number] = [undefined, 6];
  for (const each of placed) {
    if (y < each.top || y > each.top + STEP_HEIGHT) {
      continue;
    }
    const away = x < each.x ? each.x - x : Math.max(0, x - each.x - each.width);
    if (away < nearest) {
      [best, nearest] = [each.step, away];
    }
  }
  return best;
}

function laneName(text: string, y: number): Shape[] {
  return [{ kind: "text", x: LANE_LEFT - 8, y, text: clipped(text, 15), fill: "muted", align: "right" }];
}

function lineLane(
  name: string, points: readonly (readonly [number, number])[], range: Range, width: number, top: number,
  unit: string, most: number | undefined, gapMs: number,
): Shape[] {
  const x = timeX(range, width);
  const peak = most ?? (points.reduce((one, [, value]) => Math.max(one, value), 0) || 1);
  const shapes: Shape[] = [
    ...laneName(name, top + LINE_HEIGHT / 2 - 4),
    { kind: "line", points: [[LANE_LEFT, top + LINE_HEIGHT], [width - RIGHT, top + LINE_HEIGHT]], stroke: "grid" },
  ];
  let run: [number, number][] = [];
  let before = Number.NaN;
  const end = (): void => {
    if (run.length === 1 && run[0]) {
      shapes.push({ kind: "rect", x: run[0][0] - 1, y: run[0][1] - 1, width: 2, height: 2, fill: "accent" });
    } else if (run.length) {
      shapes.push({ kind: "line", points: run, stroke: "accent", width: 1.25 });
    }
    run = [];
  };
  for (const [ms, value] of points) {
    if (ms - before > gapMs) {
      end();
    }
    run.push([x(ms), top + LINE_HEIGHT - Math.min(1, value / peak) * (LINE_HEIGHT - 2)]);
    before = ms;
  }
  end();
  const label = unit === "share" ? share(peak) : unit === "watts" ? `${amount(peak, unit)} W` : unit === "degrees" ? `${amount(peak, unit)} °C` : amount(peak, unit);
  shapes.push({ kind: "text", x: LANE_LEFT - 8, y: top + LINE_HEIGHT - 3, text: `to ${label}`, fill: "muted", size: 9, align: "right" });
  return shapes;
}

function timeAxis(range: Range, width: number, top: number): Shape[] {
  const x = timeX(range, width);
  const { at, stepMs } = timeTicks(range, width / 90);
  return at.flatMap((tick): Shape[] => [
    { kind: "line", points: [[x(tick), top], [x(tick), top + 4]], stroke: "faint" },
    { kind: "text", x: x(tick), y: top + 12, text: clock(tick, stepMs), fill: "muted", align: "center" },
  ]);
}

function clipped(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
