// The address is the state of the page: what it shows can be linked, and the browser's own buttons go
// back. Filters stand in it as the API takes them, so that every answer has the same parameters.

import { parseDuration, type Range } from "./time.ts";

export const VIEWS = [
  "overview",
  "explore",
  "trace",
  "steps",
  "distributions",
  "tail",
  "slo",
  "ledger",
] as const;
export type View = (typeof VIEWS)[number];

export type Selection = {
  readonly sinceMs: number;
  readonly untilMs: number;
  readonly least: number | undefined;
  readonly most: number | undefined;
};

export type Address = {
  readonly view: View;
  /** Two moments, or how long before now. */
  readonly range: Range | { readonly lastMs: number };
  /** Parameters of the API: [name, text]. */
  readonly filters: readonly (readonly [string, string])[];
  readonly selection: Selection | undefined;
  /** What else a view remembers, such as the value of the heatmap. */
  readonly settings: Readonly<Record<string, string>>;
};

const SETTINGS = ["value", "mode", "order", "trace", "span", "engine", "against", "target", "objective", "steps"];
const KEYED = /^(tag|attribute|resource)\../s;
export const FILTERS = [
  "model", "service", "operation", "status", "model_version", "status_message", "framework",
  "pipeline_stage", "finish_reason", "engine", "gpu_device_id", "scope_name", "producer",
];
const MEASURED = /^(min|max)_[a-z_]+$/;
export const DEFAULT_LAST = "1h";

export function isFilter(name: string): boolean {
  return FILTERS.includes(name) || KEYED.test(name) || MEASURED.test(name);
}

export function parseAddress(search: string): Address {
  const given = new URLSearchParams(search);
  const view = VIEWS.find((each) => each === given.get("view")) ?? "overview";
  const filters: [string, string][] = [];
  const settings: Record<string, string> = {};
  for (const [name, text] of given) {
    if (name.startsWith("f.") && isFilter(name.slice(2))) {
      filters.push([name.slice(2), text]);
    } else if (SETTINGS.includes(name)) {
      settings[name] = text;
    }
  }
  return { view, range: parseRange(given), filters, selection: parseSelection(given), settings };
}

function parseRange(given: URLSearchParams): Address["range"] {
  const [since, until] = [Number(given.get("since") ?? "x"), Number(given.get("until") ?? "x")];
  if (since >= 0 && since < until) {
    return { sinceMs: since, untilMs: until };
  }
  const lastMs = parseDuration(given.get("last") ?? DEFAULT_LAST) ?? 3_600_000;
  return { lastMs };
}

function parseSelection(given: URLSearchParams): Selection | undefined {
  const parts = (given.get("box") ?? "").split("~");
  const [since, until, least, most] = parts.map((part) => (part === "" ? undefined : Number(part)));
  if (parts.length !== 4 || since === undefined || until === undefined || !(since < until)) {
    return undefined;
  }
  const known = [since, until, least ?? 0, most ?? 0].every(Number.isFinite);
  return known ? { sinceMs: since, untilMs: until, least, most } : undefined;
}

export function formatAddress(address: Address): string {
  const query: [string, string][] = [["view", address.view]];
  if ("lastMs" in address.range) {
    query.push(["last", durationText(address.range.lastMs)]);
  } else {
    query.push(["since", plain(address.range.sinceMs)], ["until", plain(address.range.untilMs)]);
  }
  for (const [name, text] of address.filters) {
    query.push([`f.${name}`, text]);
  }
  if (address.selection) {
    const { sinceMs, untilMs, least, most } = address.selection;
    const parts = [sinceMs, untilMs, least, most].map((each) => (each === undefined ? "" : plain(each)));
    query.push(["box", parts.join("~")]);
  }
  for (const name of SETTINGS) {
    const text = address.settings[name];
    if (text !== undefined && text !== "") {
      query.push([name, text]);
    }
  }
  return `?${new URLSearchParams(query)}`;
}

export function durationText(ms: number): string {
  for (const [unit, size] of [["d", 86_400_000], ["h", 3_600_000], ["m", 60_000], ["s", 1_000]] as const) {
    if (ms >= size && ms % size === 0) {
      return `${ms / size}${unit}`;
    }
  }
  return `${Math.max(1, Math.round(ms))}ms`;
}

function plain(value: number): string {
  return String(Number(value.toPrecision(16)));
}

/** The filters with one more, in place of what they say of the same name. */
export function withFilter(filters: Address["filters"], name: string, text: string): Address["filters"] {
  return [...filters.filter(([each]) => each !== name), [name, text]];
}
