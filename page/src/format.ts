// Numbers for people.

export function count(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** Milliseconds with three digits that mean something: 0.42 ms, 12.3 ms, 4.31 s, 2.5 min. */
export function milliseconds(value: number | undefined | null): string {
  if (value === undefined || value === null) {
    return "–";
  }
  const size = Math.abs(value);
  if (size >= 600_000) {
    return `${digits(value / 60_000)} min`;
  }
  if (size >= 1_000) {
    return `${digits(value / 1_000)} s`;
  }
  return size >= 0.001 || size === 0 ? `${digits(value)} ms` : `${digits(value * 1_000_000)} ns`;
}

export function digits(value: number): string {
  const size = Math.abs(value);
  if (size >= 1_000) {
    return count(value);
  }
  const places = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return String(Number(value.toFixed(places)));
}

export function share(value: number | undefined | null): string {
  if (value === undefined || value === null) {
    return "–";
  }
  const percent = value * 100;
  // What is not quite everything never reads as 100 %.
  if (percent < 100 && percent > 99.99) {
    return "> 99.99 %";
  }
  if (percent > 0 && percent < 0.1) {
    return "< 0.1 %";
  }
  return `${Number(percent.toFixed(percent > 99 && percent < 100 ? 2 : percent >= 10 ? 0 : 1))} %`;
}

export function change(value: number | undefined | null): string {
  if (value === undefined || value === null) {
    return "";
  }
  const percent = Math.round(value * 100);
  if (percent > 999) {
    return `× ${digits(value + 1)}`;
  }
  return `${percent > 0 ? "+" : percent < 0 ? "−" : "±"}${Math.abs(percent)} %`;
}

/** A value of a measure in its unit. */
export function amount(value: number | undefined | null, unit: string): string {
  if (value === undefined || value === null) {
    return "–";
  }
  if (unit === "ms") {
    return milliseconds(value);
  }
  if (unit === "share") {
    return share(value);
  }
  if (unit === "bytes") {
    return bytes(value);
  }
  return unit === "percent" ? `${digits(value)} %` : digits(value);
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let left = value;
  let place = 0;
  while (left >= 1_024 && place < units.length - 1) {
    left /= 1_024;
    place += 1;
  }
  return `${digits(left)} ${units[place]}`;
}

export function plural(number: number, one: string, many = `${one}s`): string {
  return `${count(number)} ${number === 1 ? one : many}`;
}

const NAMES: Record<string, string> = {
  duration_ms: "duration",
  time_to_first_token_ms: "time to first token",
  inter_token_latency_ms: "mean time between tokens",
  max_inter_token_latency_ms: "longest time between tokens",
  queue_wait_time_ms: "wait in the queue",
};

/** A measure or a field as people call it. */
export function nameOf(field: string): string {
  return NAMES[field] ?? field.replace(/_/g, " ");
}
