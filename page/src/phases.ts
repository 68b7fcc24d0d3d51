// What a request did when: its queue, its prefill, its decoding, as far as its span says it.
//
// Only `scheduled_after_ms` places the queue inside of a span. `queue_wait_time_ms` is what the server
// says it waited, which may have been before the span began, so it is told and not drawn.

import type { Span } from "./answers.ts";
import type { Ink } from "./display.ts";

export type Phase = { readonly name: "queue" | "prefill" | "decode" | "work"; readonly fromMs: number; readonly toMs: number };

export function phasesOf(span: Span): Phase[] {
  const end = span.duration_ms;
  const inside = (value: number | undefined): number | undefined =>
    value === undefined ? undefined : Math.max(0, Math.min(end, value));
  const scheduled = inside(span.scheduled_after_ms);
  const first = inside(span.time_to_first_token_ms);
  const phases: Phase[] = [];
  const start = scheduled ?? 0;
  if (scheduled !== undefined && scheduled > 0) {
    phases.push({ name: "queue", fromMs: 0, toMs: scheduled });
  }
  if (first === undefined) {
    phases.push({ name: "work", fromMs: start, toMs: end });
    return phases;
  }
  if (first > start) {
    phases.push({ name: "prefill", fromMs: start, toMs: first });
  }
  if (end > Math.max(first, start)) {
    phases.push({ name: "decode", fromMs: Math.max(first, start), toMs: end });
  }
  return phases;
}

export function inkOf(phase: Phase["name"]): Ink {
  return phase === "work" ? "step" : phase;
}
