// The requests in the selection: a row each, with what it did when.

import { computed, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import type { Span } from "../answers.ts";
import { curlOf, pathOf, useAnswer } from "../api.ts";
import { Canvas, copy } from "../chart.tsx";
import { csv, type DisplayList, type Table } from "../display.ts";
import { amount, count, milliseconds, nameOf } from "../format.ts";
import { inkOf, phasesOf } from "../phases.ts";
import { windowOf } from "../rows.ts";
import { spanParameters } from "../selection.ts";
import { address, chosenSpans, linkTo, openTrace, set } from "../state.ts";
import { clock, parseTime } from "../time.ts";
import { shownValue } from "./explore.tsx";
import { completeness } from "./ledger.tsx";
import { Failed } from "./state_of.tsx";

const ROW = 30;
const HEIGHT = 420;
const AROUND = 4;
const LIMIT = "1000";
const BAR = { width: 150, height: 12 };
const FIELDS = [
  "trace_id", "span_id", "start_time", "duration_ms", "status", "status_message", "model_name", "request_id", "operation_name", "input_tokens",
  "output_tokens", "scheduled_after_ms", "queue_wait_time_ms", "time_to_first_token_ms", "inter_token_latency_ms", "max_inter_token_latency_ms",
];
const ORDERS = ["duration_ms", "time_to_first_token_ms", "queue_wait_time_ms", "max_inter_token_latency_ms", "inter_token_latency_ms", "input_tokens", "output_tokens", "start"];
const order = computed(() => address.value.settings["order"] ?? "duration_ms");

export function RequestList(): JSX.Element {
  const asked = useAnswer<Span[]>(() => {
    const selection = address.value.selection;
    if (!selection) {
      return undefined;
    }
    const parameters = chosenSpans({ sinceMs: selection.sinceMs, untilMs: selection.untilMs });
    // A filter on the same value is narrower than the box, or the box is narrower than it.
    const box = spanParameters(selection, shownValue.value);
    const others = parameters.filter(([name]) => !box.some(([each]) => each === name));
    return pathOf("spans", [...others, ...box, ["order", order.value], ["limit", LIMIT], ["fields", FIELDS.join(",")], ["total", "1"]]);
  });
  const spans = asked.data ?? [];
  const total = Number(asked.headers?.get("X-Total-Count") ?? spans.length);
  const longest = spans.reduce((most, span) => Math.max(most, span.duration_ms), 0);
  return (
    <section class="requests" aria-labelledby="requests-title" aria-busy={asked.isLoading}>
      <div class="title">
        <h2 id="requests-title">Requests in the box</h2>
        <label>
          sorted by
          <select value={order.value} onChange={(event) => set("order", event.currentTarget.value)}>
            {ORDERS.map((each) => <option key={each} value={each}>{each === "start" ? "start" : nameOf(each)}</option>)}
          </select>
        </label>
        <span class="legend">
          <span class="key queuekey">queue</span>
          <span class="key prefillkey">prefill</span>
          <span class="key decodekey">decode</span>
        </span>
      </div>
      <Failed asked={asked} />
      {asked.data && (
        <>
          <Rows spans={spans} longest={longest} />
          <p class="notes">
            {spans.length < total ? `the first ${count(spans.length)} of ${count(total)}; narrow the box to see the others` : `all ${count(total)}`} · {completeness.value}
            <span class="take">
              <button type="button" onClick={() => copy(csv(tableOf(spans)))}>Copy CSV</button>
              <button type="button" onClick={() => copy(location.href)}>Link</button>
              <button type="button" onClick={() => copy(curlOf(asked.path))}>curl</button>
            </span>
          </p>
        </>
      )}
    </section>
  );
}

function Rows({ spans, longest }: { spans: readonly Span[]; longest: number }): JSX.Element {
  const top = useSignal(0);
  const { first, end } = windowOf(spans.length, ROW, top.value, HEIGHT, AROUND);
  const above = { height: `${first * ROW}px` };
  const below = { height: `${Math.max(0, spans.length - end) * ROW}px` };
  return (
    <div class="virtual" style={{ maxHeight: `${HEIGHT}px` }} onScroll={(event) => { top.value = event.currentTarget.scrollTop; }} tabIndex={0} role="region" aria-label="Requests in the box, as a table">
      <table class="rows" aria-rowcount={spans.length + 1}>
        <thead>
          <tr aria-rowindex={1}>
            <th scope="col">start (UTC)</th>
            <th scope="col">request</th>
            <th scope="col">model</th>
            <th scope="col">what it did</th>
            <th scope="col" class="number">duration</th>
            <th scope="col" class="number">first token</th>
            <th scope="col" class="number">queue</th>
            <th scope="col" class="number">longest gap</th>
            <th scope="col" class="number">tokens</th>
          </tr>
        </thead>
        <tbody>
          <tr class="pad" aria-hidden="true"><td colSpan={9} style={above} /></tr>
          {spans.slice(first, end).map((span, place) => (
            <Request key={span.span_id + span.trace_id} span={span} longest={longest} row={first + place} />
          ))}
          <tr class="pad" aria-hidden="true"><td colSpan={9} style={below} /></tr>
        </tbody>
      </table>
    </div>
  );
}

function Request({ span, longest, row }: { span: Span; longest: number; row: number }): JSX.Element {
  const target = { view: "trace" as const, settings: { ...address.value.settings, trace: span.trace_id, span: span.span_id } };
  const queue = span.scheduled_after_ms ?? span.queue_wait_time_ms;
  const failed = span.status === "OK" ? "" : span.status;
  return (
    <tr aria-rowindex={row + 2} class="request">
      <td class="when">{clock(parseTime(span.start_time), 1)}</td>
      <th scope="row">
        <a href={linkTo(target)} onClick={(event) => { event.preventDefault(); openTrace(span.trace_id, span.span_id); }}>
          {span.request_id ?? span.trace_id.slice(0, 12)}
        </a>
        {failed && <span class="status" title={span.status_message ?? ""}>{failed}</span>}
      </th>
      <td>{span.model_name ?? "–"}</td>
      <td class="phases"><Canvas list={phaseBar(span, longest)} label={phaseText(span)} /></td>
      <td class="number">{milliseconds(span.duration_ms)}</td>
      <td class="number">{milliseconds(span.time_to_first_token_ms)}</td>
      <td class="number">{milliseconds(queue)}</td>
      <td class="number">{milliseconds(span.max_inter_token_latency_ms)}</td>
      <td class="number">{amount(span.input_tokens, "")} → {amount(span.output_tokens, "")}</td>
    </tr>
  );
}

function phaseBar(span: Span, longest: number): DisplayList {
  const scale = BAR.width / (longest || 1);
  const shapes = phasesOf(span).map(({ name, fromMs, toMs }) => ({
    kind: "rect" as const, x: fromMs * scale, y: 1, width: Math.max(1, (toMs - fromMs) * scale), height: BAR.height - 2, fill: inkOf(name),
    hatch: span.status === "ERROR",
  }));
  return { ...BAR, shapes };
}

export function phaseText(span: Span): string {
  return phasesOf(span).map(({ name, fromMs, toMs }) => `${name} ${milliseconds(toMs - fromMs)}`).join(", ");
}

function tableOf(spans: readonly Span[]): Table {
  return {
    head: FIELDS,
    rows: spans.map((span) => FIELDS.map((name) => {
      const value = (span as unknown as Record<string, unknown>)[name];
      return typeof value === "number" || typeof value === "string" ? value : "";
    })),
  };
}
