// What arrives, as it arrives; what there was no room for is counted, and never left out in silence.

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import type { Span, Tail } from "../answers.ts";
import { ApiError, ask, curlOf, type Parameters, pathOf } from "../api.ts";
import { copy } from "../chart.tsx";
import { count, milliseconds, plural } from "../format.ts";
import { address, openTrace, token } from "../state.ts";
import { clock, parseTime } from "../time.ts";
import { phaseText } from "./requests.tsx";
import { completeness } from "./ledger.tsx";

const POLL_MS = 1_000;
const LIMIT = 100; // of one answer
const MAX_ROWS = 200; // on the page

type Seen = { readonly place: number; readonly span: Span };
type Gap = { readonly place: number; readonly skipped: number };
const entries = signal<readonly (Seen | Gap)[]>([]);
const isPaused = signal(false);
const isHeld = signal(false); // while somebody reads
const counts = signal({ shown: 0, skipped: 0, forgotten: 0, rate: 0 });
const failure = signal("");
let place = 0;

function parameters(): Parameters {
  const filters = address.value.filters;
  const operation = filters.find(([name]) => name === "operation")?.[1];
  return operation === undefined ? [...filters] : filters;
}

export function TailView(): JSX.Element {
  const filters = JSON.stringify(address.value.filters);
  const given = token.value;
  useEffect(() => {
    entries.value = [];
    counts.value = { shown: 0, skipped: 0, forgotten: 0, rate: 0 };
    let after: number | undefined;
    let askedMs = 0;
    let isStopped = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const poll = async (): Promise<void> => {
      if (!document.hidden && !isPaused.value && !isHeld.value) {
        try {
          const more: [string, string][] = [["limit", String(LIMIT)]];
          if (after !== undefined) {
            more.push(["after", String(after)]);
          }
          const { data } = await ask<Tail>(pathOf("tail", [...parameters(), ...more]));
          if (isStopped) {
            return;
          }
          const nowMs = performance.now();
          const rate = askedMs && after !== undefined ? (1_000 * data.total) / (nowMs - askedMs) : 0;
          askedMs = nowMs;
          take(data, after === undefined, rate);
          after = data.next;
          failure.value = "";
        } catch (error) {
          failure.value = error instanceof ApiError ? error.message : "the collector does not answer";
        }
      }
      if (!isStopped) {
        timer = setTimeout(poll, POLL_MS);
      }
    };
    void poll();
    return () => {
      isStopped = true;
      clearTimeout(timer);
    };
  }, [filters, given]);

  const { shown, skipped, forgotten, rate } = counts.value;
  return (
    <section aria-labelledby="tail-title">
      <div class="title">
        <h1 id="tail-title">Live tail</h1>
        <button type="button" aria-pressed={isPaused.value} onClick={() => { isPaused.value = !isPaused.value; }}>
          {isPaused.value ? "Go on" : "Pause"}
        </button>
        <span class="figures" role="status">
          {count(rate)} a second · {count(shown)} shown · {count(skipped)} left out{forgotten ? ` · ${count(forgotten)} came unseen` : ""}
          {isHeld.value && !isPaused.value ? " · waits while you read" : ""}
        </span>
      </div>
      <p class="hint">In the order in which this collector stored them: when they ended. It waits while the pointer is on the list or the keyboard is in it.</p>
      {failure.value && <p class="failed" role="alert">{failure.value}</p>}
      <div
        class="tablebox tailbox"
        tabIndex={0}
        role="region"
        aria-label="What arrived last"
        onPointerEnter={() => { isHeld.value = true; }}
        onPointerLeave={() => { isHeld.value = false; }}
        onFocusIn={() => { isHeld.value = true; }}
        onFocusOut={() => { isHeld.value = false; }}
      >
        <table class="rows">
          <thead>
            <tr><th scope="col">ended (UTC)</th><th scope="col">request</th><th scope="col">model</th><th scope="col">operation</th><th scope="col">status</th><th scope="col" class="number">duration</th><th scope="col">what it did</th></tr>
          </thead>
          <tbody>
            {entries.value.map((entry) =>
              "skipped" in entry ? (
                <tr key={entry.place} class="skipped"><td colSpan={7}>{plural(entry.skipped, "more")} came here and are not shown: narrow the filters to see them</td></tr>
              ) : (
                <Row key={entry.place} span={entry.span} />
              ),
            )}
          </tbody>
        </table>
      </div>
      {!entries.value.length && <p>Nothing has come yet.</p>}
      <p class="notes">
        the last {MAX_ROWS} at most · {completeness.value}
        <span class="take">
          <button type="button" onClick={() => copy(location.href)}>Link</button>
          <button type="button" onClick={() => copy(curlOf(pathOf("tail", parameters())))}>curl</button>
        </span>
      </p>
    </section>
  );
}

function take(data: Tail, isFirst: boolean, rate: number): void {
  const arrived: (Seen | Gap)[] = data.spans.map((span) => ({ place: place++, span }));
  // What came before anybody watched is not left out.
  const skipped = isFirst ? 0 : data.skipped;
  if (skipped) {
    arrived.unshift({ place: place++, skipped });
  }
  const old = counts.value;
  counts.value = {
    shown: old.shown + data.spans.length,
    skipped: old.skipped + skipped,
    forgotten: old.forgotten + (isFirst ? 0 : data.forgotten),
    rate,
  };
  if (arrived.length) {
    entries.value = [...arrived.reverse(), ...entries.value].slice(0, MAX_ROWS);
  }
}

function Row({ span }: { span: Span }): JSX.Element {
  return (
    <tr>
      <td class="when">{clock(parseTime(span.start_time) + span.duration_ms, 1)}</td>
      <th scope="row"><button type="button" class="link" onClick={() => openTrace(span.trace_id, span.span_id)}>{span.request_id ?? span.trace_id.slice(0, 12)}</button></th>
      <td>{span.model_name ?? "–"}</td>
      <td>{span.operation_name ?? "–"}</td>
      <td class={span.status === "ERROR" ? "failed" : ""}>{span.status}</td>
      <td class="number">{milliseconds(span.duration_ms)}</td>
      <td>{phaseText(span)}</td>
    </tr>
  );
}
