// Points in time: milliseconds since 1970 as floats, which hold a quarter of a microsecond today.

const DURATION = /^([1-9][0-9]{0,8})(ms|s|m|h|d)$/;
const UNIT_MS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

export type Range = { readonly sinceMs: number; readonly untilMs: number };

/** What an answer says, such as 2026-01-31T12:00:00.000000000Z. */
export function parseTime(text: string): number {
  const [whole = "", fraction = ""] = text.replace("Z", "").split(".");
  return Date.parse(`${whole}Z`) + Number(`0.${fraction || "0"}`) * 1_000;
}

/** What a request takes: seconds since 1970, exact to the microsecond. */
export function apiTime(ms: number): string {
  const micros = BigInt(Math.round(ms)) * 1_000n + BigInt(Math.round((ms - Math.round(ms)) * 1_000));
  const text = micros.toString().padStart(7, "0");
  return `${text.slice(0, -6)}.${text.slice(-6)}`;
}

export function parseDuration(text: string): number | undefined {
  const match = DURATION.exec(text);
  return match ? Number(match[1]) * (UNIT_MS[match[2] ?? ""] ?? Number.NaN) : undefined;
}

/** The text of a moment for people, in UTC, with as many digits as a step of the time needs. */
export function clock(ms: number, stepMs: number): string {
  const iso = new Date(ms).toISOString();
  if (stepMs >= 86_400_000) {
    return iso.slice(5, 10);
  }
  if (stepMs >= 60_000) {
    return iso.slice(11, 16);
  }
  return stepMs >= 1_000 ? iso.slice(11, 19) : iso.slice(11, 23);
}

export function dateAndClock(ms: number): string {
  return new Date(ms).toISOString().slice(0, 19).replace("T", " ");
}

export function rangeText({ sinceMs, untilMs }: Range): string {
  const [from, to] = [dateAndClock(sinceMs), dateAndClock(untilMs)];
  return `${from} – ${to.slice(0, 10) === from.slice(0, 10) ? to.slice(11) : to} UTC`;
}

const STEPS_MS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000,
  300_000, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000,
  86_400_000, 172_800_000, 604_800_000,
];

/** Moments for an axis, no more than its limit, and how far they are apart. */
export function timeTicks({ sinceMs, untilMs }: Range, most: number): { at: number[]; stepMs: number } {
  const wanted = (untilMs - sinceMs) / Math.max(1, most);
  const stepMs = STEPS_MS.find((step) => step >= wanted) ?? Math.ceil(wanted / 604_800_000) * 604_800_000;
  const at: number[] = [];
  for (let tick = Math.ceil(sinceMs / stepMs) * stepMs; tick <= untilMs; tick += stepMs) {
    at.push(tick);
  }
  return { at, stepMs };
}
