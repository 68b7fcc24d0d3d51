// What is stored of what was produced, in one line, and for a range.

import type { Ledger, Producer } from "./answers.ts";
import { count, plural } from "./format.ts";
import { parseTime, type Range } from "./time.ts";

export type Totals = {
  readonly produced: number;
  readonly stored: number;
  readonly pending: number;
  readonly dropped: number;
  /** Of senders that do not number their spans, so nobody knows what they produced. */
  readonly unnumbered: number;
  readonly reasons: Readonly<Record<string, number>>;
};

/** The dropped ones are what is neither stored nor pending, so the sum always holds. */
export function droppedOf(producer: Producer): number {
  return Math.max(0, (producer.produced ?? 0) - producer.stored - (producer.pending ?? 0));
}

export function totalsOf(ledger: Ledger): Totals {
  const sums = { produced: 0, stored: 0, pending: 0, dropped: 0, unnumbered: 0 };
  const reasons: Record<string, number> = {};
  for (const producer of ledger.producers) {
    if (!producer.numbered) {
      sums.unnumbered += producer.stored;
      continue;
    }
    const dropped = droppedOf(producer);
    sums.stored += producer.stored;
    sums.pending += producer.pending ?? 0;
    sums.dropped += dropped;
    // A producer whose first report is on its way may have stored more than it told of.
    sums.produced += producer.stored + (producer.pending ?? 0) + dropped;
    for (const [reason, spans] of Object.entries(producer.dropped ?? {})) {
      reasons[reason] = (reasons[reason] ?? 0) + spans;
    }
  }
  return { ...sums, reasons };
}

export function isIncomplete(producer: Producer): boolean {
  const isSilent = producer.state === "silent" && (producer.pending ?? 0) > 0;
  return producer.numbered && (droppedOf(producer) > 0 || (producer.gaps?.length ?? 0) > 0 || isSilent);
}

// Spans come when they end: a producer may be seen first some time after its spans of a range began.
const SLACK_MS = 600_000;

/** What a chart of a range says of its completeness. */
export function completenessOf(ledger: Ledger | undefined, range: Range): string {
  if (!ledger) {
    return "completeness not known";
  }
  const active = ledger.producers.filter(
    (producer) => parseTime(producer.first_seen) <= range.untilMs + SLACK_MS && parseTime(producer.last_seen) >= range.sinceMs,
  );
  const incomplete = active.filter(isIncomplete);
  if (incomplete.length) {
    const missing = incomplete.reduce((sum, each) => sum + droppedOf(each) + (each.pending ?? 0), 0);
    return `incomplete: ${plural(incomplete.length, "producer")} with ${count(missing)} spans that are not stored`;
  }
  const unnumbered = active.filter((producer) => !producer.numbered).length;
  if (!active.length) {
    return "completeness not known: no producer reported in this time";
  }
  return unnumbered === active.length ? "completeness not known: spans without numbers" : "complete";
}
