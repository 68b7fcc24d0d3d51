// One trace: why it was slow, and its spans as a waterfall.

import { computed, useComputed, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { Address } from "../address.ts";
import type { Finding, Span, Trace, Why } from "../answers.ts";
import { curlOf, pathOf, useAnswer } from "../api.ts";
import { copy } from "../chart.tsx";
import { csv, type Table } from "../display.ts";
import { count, digits, milliseconds, nameOf, plural, share } from "../format.ts";
import { formatInterval } from "../lanes.ts";
import { download, openInPerfetto } from "../perfetto.ts";
import { phasesOf } from "../phases.ts";
import { windowOf } from "../rows.ts";
import { address, adjust, go, linkTo, openTrace } from "../state.ts";
import { dateAndClock, parseTime } from "../time.ts";
import { axisOf, axisTicks, gapsOf, type Node, shownRows, treeOf, type Tree } from "../waterfall.ts";
import { completeness } from "./ledger.tsx";
import { Failed } from "./state_of.tsx";

const ROW = 24;
const HEIGHT = 560;
const AROUND = 8;
const LEAST_GAP = 0.12; // of the whole, for a gap to be folded
const GAP_WIDTH = 0.02;
const MAX_MARKS = 60; // of events, in one row

const traceId = computed(() => address.value.settings["trace"] ?? "");
const spanId = computed(() => address.value.settings["span"] ?? "");

export function TraceView(): JSX.Element {
  const asked = useAnswer<Trace>(() => (traceId.value ? `traces/${traceId.value}` : undefined));
  const trace = asked.data?.trace_id === traceId.value ? asked.data : undefined;
  const span = trace && chosenSpan(trace, spanId.value);
  return (
    <section aria-labelledby="trace-title" aria-busy={asked.isLoading}>
      <div class="title">
        <a class="back" href={linkTo({ view: "explore" })} onClick={(event) => { event.preventDefault(); history.back(); }}>← back</a>
        <h1 id="trace-title">{span?.request_id ?? span?.operation_name ?? "Trace"}</h1>
        {span && trace && (
          <span class="figures">
            {span.model_name ?? span.service_name} · {dateAndClock(parseTime(span.start_time))} UTC · <b>{milliseconds(span.duration_ms)}</b> · {span.status} ·{" "}
            {plural(trace.spans.length, "span")}{trace.truncated ? ", more are not shown" : ""}
          </span>
        )}
        {trace && (
          <span class="take">
            {span?.first_step !== undefined && span.last_step !== undefined && (
              <a class="tosteps" href={linkTo(stepsOfRequest(span))} onClick={(event) => { event.preventDefault(); go(stepsOfRequest(span)); }}>Its steps</a>
            )}
            <button type="button" onClick={() => openInPerfetto(exportPath(trace), exportName(trace))}>Open in Perfetto</button>
            <button type="button" onClick={() => void download(exportPath(trace), `${exportName(trace)}.pftrace`)}>Download for Perfetto</button>
          </span>
        )}
      </div>
      <Failed asked={asked} />
      {trace && <WhyPanel key={whyPath(trace)} path={whyPath(trace)} />}
      {trace && <Waterfall trace={trace} path={asked.path} />}
    </section>
  );
}

/** The steps of the request's engine in its time, its own ones lit. */
function stepsOfRequest(span: Span): Partial<Address> {
  const startMs = parseTime(span.start_time);
  const around = span.duration_ms / 20;
  const interval = { engine: span.engine ?? "0", producer: span.producer_id ?? "", first: span.first_step ?? 0, last: span.last_step ?? 0 };
  return {
    view: "steps",
    range: { sinceMs: startMs - around, untilMs: startMs + span.duration_ms + around },
    settings: { ...address.value.settings, steps: formatInterval(interval) },
  };
}

function exportPath(trace: Trace): string {
  return pathOf("export/perfetto", [["trace_id", trace.trace_id]]);
}

function exportName(trace: Trace): string {
  return `infertrace-${trace.trace_id.slice(0, 12)}`;
}

function chosenSpan(trace: Trace, wanted: string): Span | undefined {
  return trace.spans.find((span) => span.span_id === wanted) ?? trace.spans.find((span) => span.model_name !== undefined) ?? trace.spans[0];
}

/** Of the chosen span where it is a request of a model, else of the request in the trace, if any. */
function whyPath(trace: Trace): string | undefined {
  const isRequest = (span: Span): boolean => span.model_name !== undefined;
  const chosen = trace.spans.find((span) => span.span_id === spanId.value && isRequest(span));
  if (!chosen && !trace.spans.some(isRequest)) {
    return undefined;
  }
  return pathOf(`traces/${trace.trace_id}/why`, chosen ? [["span_id", chosen.span_id]] : []);
}

function WhyPanel({ path }: { path: string | undefined }): JSX.Element {
  const asked = useAnswer<Why>(() => path);
  if (path === undefined) {
    return <p class="why none">No span of a model is here, so there is nothing to say about why it took so long.</p>;
  }
  if (asked.error) {
    return <p class="why none">{asked.error.message}</p>;
  }
  const why = asked.data;
  if (!why) {
    return <div class="why" aria-busy="true" />;
  }
  return (
    <section class="why" aria-labelledby="why-title">
      <h2 id="why-title">Why</h2>
      <p class="summary">{why.summary}</p>
      {why.findings.length > 0 && (
        <ol>
          {why.findings.map((finding, place) => <FindingItem key={place} finding={finding} total={why.duration_ms} />)}
        </ol>
      )}
      {why.unexplained !== null && why.unexplained !== "" && <p class="hint">{why.unexplained}</p>}
      {why.unknown.length > 0 && <p class="hint">Not known: {why.unknown.join(" ")}</p>}
      <p class="notes">
        compared with {plural(why.baseline.request_count, "request")} of the model in the hour before · {completeness.value}
        <span class="take"><button type="button" onClick={() => copy(curlOf(asked.path))}>curl</button></span>
      </p>
    </section>
  );
}

function FindingItem({ finding, total }: { finding: Finding; total: number }): JSX.Element {
  const culprit = finding.culprit;
  return (
    <li>
      <span class="weight" aria-hidden="true"><span style={{ width: `${Math.min(100, (100 * finding.explained_ms) / (total || 1))}%` }} /></span>
      <span class="sentence">{finding.sentence}</span>
      <span class="evidence">
      {culprit && (
        <a href={linkTo({ settings: { ...address.value.settings, trace: culprit.trace_id, span: culprit.span_id } })} onClick={(event) => { event.preventDefault(); openTrace(culprit.trace_id, culprit.span_id); }}>
          Open {culprit.request_id ?? culprit.trace_id.slice(0, 12)}
        </a>
      )}
      {finding.steps.slice(0, 3).map((step) => (
        <a key={step.span_id} href={linkTo({ settings: { ...address.value.settings, trace: step.trace_id, span: step.span_id } })} onClick={(event) => { event.preventDefault(); openTrace(step.trace_id, step.span_id); }}>
          step {step.index}, {milliseconds(step.duration_ms)}
        </a>
      ))}
      </span>
    </li>
  );
}

function Waterfall({ trace, path }: { trace: Trace; path: string }): JSX.Element {
  const tree = useMemo(() => treeOf(trace), [trace]);
  const folded = useSignal<ReadonlySet<string>>(new Set());
  const search = useSignal("");
  const leastShare = useSignal(0);
  const isFolding = useSignal(true);
  const top = useSignal(0);
  const at = useSignal(0);
  const box = useRef<HTMLDivElement>(null);
  const gaps = useMemo(() => gapsOf(tree, LEAST_GAP), [tree]);
  const rows = useComputed(() => shownRows(tree, folded.value, search.value, leastShare.value * tree.lengthMs)).value;
  const axis = axisOf(tree.lengthMs, isFolding.value ? gaps : [], GAP_WIDTH);
  const { first, end } = windowOf(rows.length, ROW, top.value, HEIGHT, AROUND);
  const chosenRow = rows.findIndex((row) => tree.nodes[row]?.span.span_id === spanId.value);

  useEffect(() => {
    at.value = Math.max(0, chosenRow);
    if (chosenRow > 10 && box.current) {
      box.current.scrollTop = (chosenRow - 5) * ROW;
    }
  }, [trace]);

  const choose = (row: number): void => {
    const node = tree.nodes[rows[row] ?? -1];
    if (node) {
      at.value = row;
      adjust({ settings: { ...address.value.settings, span: node.span.span_id } });
    }
  };
  const fold = (node: Node | undefined, wanted?: boolean): void => {
    if (node?.childCount) {
      const next = new Set(folded.value);
      if (wanted ?? !next.has(node.span.span_id)) {
        next.add(node.span.span_id);
      } else {
        next.delete(node.span.span_id);
      }
      folded.value = next;
    }
  };
  const key = (event: KeyboardEvent): void => {
    const node = tree.nodes[rows[at.value] ?? -1];
    const to = (row: number): void => {
      const next = Math.max(0, Math.min(rows.length - 1, row));
      choose(next);
      const element = box.current;
      if (element) {
        element.scrollTop = Math.max(Math.min(element.scrollTop, next * ROW), (next + 2) * ROW - element.clientHeight);
      }
    };
    if (event.key === "ArrowDown" || event.key === "j") {
      to(at.value + 1);
    } else if (event.key === "ArrowUp" || event.key === "k") {
      to(at.value - 1);
    } else if (event.key === "PageDown") {
      to(at.value + 20);
    } else if (event.key === "PageUp") {
      to(at.value - 20);
    } else if (event.key === "Home") {
      to(0);
    } else if (event.key === "End") {
      to(rows.length - 1);
    } else if (event.key === "ArrowLeft") {
      fold(node, true);
    } else if (event.key === "ArrowRight") {
      fold(node, false);
    } else {
      return;
    }
    event.preventDefault();
  };

  return (
    <section class="waterfall" aria-label="Spans">
      <div class="title">
        <h2>Spans</h2>
        <input type="search" placeholder="Search the spans" aria-label="Search the spans" value={search.value} onInput={(event) => { search.value = event.currentTarget.value; }} />
        <label>
          at least
          <select value={String(leastShare.value)} onChange={(event) => { leastShare.value = Number(event.currentTarget.value); }}>
            <option value="0">all</option>
            <option value="0.01">1 % of the trace</option>
            <option value="0.025">2.5 %</option>
            <option value="0.1">10 %</option>
          </select>
        </label>
        {gaps.length > 0 && (
          <label><input type="checkbox" checked={isFolding.value} onChange={() => { isFolding.value = !isFolding.value; }} /> fold {plural(gaps.length, "gap")}</label>
        )}
        <span class="legend">
          <span class="key queuekey">queue</span><span class="key prefillkey">prefill</span><span class="key decodekey">decode</span>
          <span class="key criticalkey">critical path</span>
        </span>
      </div>
      <Axis tree={tree} axis={axis} />
      <div
        ref={box}
        class="virtual tree"
        style={{ maxHeight: `${HEIGHT}px` }}
        tabIndex={0}
        role="tree"
        aria-label="Spans: arrow keys move and fold"
        aria-activedescendant={rows.length ? `row-${at.value}` : undefined}
        onKeyDown={key}
        onScroll={(event) => { top.value = event.currentTarget.scrollTop; }}
      >
        <div class="spacer" role="presentation" style={{ height: `${rows.length * ROW}px` }}>
          {rows.slice(first, end).map((row, place) => {
            const node = tree.nodes[row];
            return node && (
              <SpanRow
                key={node.span.span_id + row}
                node={node}
                axis={axis}
                place={first + place}
                isChosen={first + place === at.value}
                isFolded={folded.value.has(node.span.span_id)}
                onChoose={() => choose(first + place)}
                onFold={() => fold(node)}
              />
            );
          })}
        </div>
      </div>
      <p class="notes">
        {rows.length < tree.nodes.length ? `${count(rows.length)} of ${plural(tree.nodes.length, "span")}, the others are folded or do not match` : plural(tree.nodes.length, "span")}
        {trace.truncated ? " · the trace has more than are told" : ""} · {milliseconds(tree.lengthMs)} · {completeness.value}
        <span class="take">
          <button type="button" onClick={() => copy(csv(tableOf(trace)))}>Copy CSV</button>
          <button type="button" onClick={() => copy(location.href)}>Link</button>
          <button type="button" onClick={() => copy(curlOf(path))}>curl</button>
        </span>
      </p>
      <Details trace={trace} node={tree.nodes[rows[at.value] ?? -1]} />
    </section>
  );
}

function Axis({ tree, axis }: { tree: Tree; axis: (ms: number) => number }): JSX.Element {
  return (
    <div class="axis" aria-hidden="true">
      <span />
      <span class="ticks">
        {axisTicks(tree.lengthMs, axis).map((ms) => (
          <span key={ms} class={ms === tree.lengthMs ? "end" : ""} style={{ left: `${100 * axis(ms)}%` }}>{milliseconds(ms)}</span>
        ))}
      </span>
    </div>
  );
}

type RowProps = {
  readonly node: Node;
  readonly axis: (ms: number) => number;
  readonly place: number;
  readonly isChosen: boolean;
  readonly isFolded: boolean;
  readonly onChoose: () => void;
  readonly onFold: () => void;
};

function SpanRow({ node, axis, place, isChosen, isFolded, onChoose, onFold }: RowProps): JSX.Element {
  const { span, startMs, endMs, depth, childCount } = node;
  const percent = (ms: number): number => 100 * axis(ms);
  const [left, right] = [percent(startMs), percent(endMs)];
  const phases = phasesOf(span).map(({ name, fromMs, toMs }) => {
    const from = percent(startMs + fromMs);
    return { name, style: { left: `${from}%`, width: `max(1.5px, ${percent(startMs + toMs) - from}%)` } };
  });
  const events = (span.events ?? []).slice(0, MAX_MARKS);
  return (
    <div
      id={`row-${place}`}
      class={`spanrow ${isChosen ? "chosen" : ""} ${node.isCritical ? "critical" : ""} ${span.status === "ERROR" ? "error" : ""}`}
      role="treeitem"
      aria-level={depth + 1}
      aria-selected={isChosen}
      {...(childCount ? { "aria-expanded": !isFolded } : {})}
      style={{ top: `${place * ROW}px` }}
      onClick={onChoose}
    >
      <span class="name" style={{ paddingLeft: `${Math.min(depth, 24) * 12 + 4}px` }}>
        <span class="fold" onClick={(event) => { event.stopPropagation(); onFold(); }}>{childCount ? (isFolded ? "▸" : "▾") : ""}</span>
        <span class="operation">{span.operation_name ?? "span"}</span>
        <span class="service">{span.service_name}{isFolded ? ` · ${count(node.descendants)} folded` : ""}</span>
      </span>
      <span class="bar">
        {phases.map(({ name, style }) => <i key={name} class={name} style={style} />)}
        {events.map((event, number) => (
          <i key={number} class="event" title={event.name} style={{ left: `${percent(startMs + parseTime(event.time) - parseTime(span.start_time))}%` }} />
        ))}
        <span class={`length ${right > 86 && left <= 14 ? "inside" : ""}`} style={lengthPlace(left, right)}>
          {milliseconds(span.duration_ms)}{span.status === "ERROR" ? " ✕" : ""}
        </span>
      </span>
    </div>
  );
}

/** Behind the bar, before it, or on it where it leaves no room on either side. */
function lengthPlace(left: number, right: number): JSX.CSSProperties {
  if (right <= 86) {
    return { left: `${right + 0.6}%` };
  }
  return left > 14 ? { right: `${100.6 - left}%` } : { right: `${100.6 - right}%` };
}

const HIDDEN = new Set(["events", "links", "attributes", "tags", "resource", "token_intervals", "trace_id", "span_id", "parent_span_id"]);

function Details({ trace, node }: { trace: Trace; node: Node | undefined }): JSX.Element | null {
  if (!node) {
    return null;
  }
  const span = node.span as Span & Record<string, unknown>;
  const phases = phasesOf(span);
  const fields = Object.entries(span).filter(([name]) => !HIDDEN.has(name));
  return (
    <section class="details" aria-labelledby="details-title">
      <h2 id="details-title">{span.operation_name ?? "span"}</h2>
      <p>
        {phases.map(({ name, fromMs, toMs }) => `${name === "work" ? "all" : name} ${milliseconds(toMs - fromMs)}`).join(" · ")} · {share(span.duration_ms / (trace.spans[0]?.duration_ms ?? span.duration_ms))} of the first span
      </p>
      {span.status_message && <p class="failed">{span.status_message}</p>}
      <Tokens span={span} />
      <div class="columns">
        <Fields title="Fields" entries={fields.map(([name, value]) => [nameOf(name), shownValue(name, value)])} />
        <Fields title="Ids" entries={["trace_id", "span_id", "parent_span_id"].flatMap((name) => (span[name] ? [[name, String(span[name])] as [string, string]] : []))} />
        <Fields title="Tags" entries={entriesOf(span["tags"])} />
        <Fields title="Attributes" entries={entriesOf(span["attributes"])} />
        <Fields title="Resource" entries={entriesOf(span["resource"])} />
      </div>
      {(span.events?.length ?? 0) > 0 && (
        <>
          <h3>Events</h3>
          <ul class="plain">
            {span.events?.map((event, place) => (
              <li key={place}><span class="n">+{milliseconds(parseTime(event.time) - parseTime(span.start_time))}</span> {event.name} <code>{event.attributes ? JSON.stringify(event.attributes) : ""}</code></li>
            ))}
          </ul>
        </>
      )}
      {(span.links?.length ?? 0) > 0 && (
        <>
          <h3>Links</h3>
          <ul class="plain">
            {span.links?.map((link, place) => (
              <li key={place}>
                <a href={linkTo({ settings: { ...address.value.settings, trace: link.trace_id, span: link.span_id } })} onClick={(event) => { event.preventDefault(); openTrace(link.trace_id, link.span_id); }}>
                  <code>{link.trace_id.slice(0, 12)}</code> span <code>{link.span_id}</code>
                </a>
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

/** Tokens as they were measured: the longest interval, and the mean named as what it is. */
function Tokens({ span }: { span: Span }): JSX.Element | null {
  if (span.inter_token_latency_ms === undefined && span.max_inter_token_latency_ms === undefined) {
    return null;
  }
  const [mean, longest] = [span.inter_token_latency_ms, span.max_inter_token_latency_ms];
  return (
    <p>
      Between tokens: {mean === undefined ? "" : `${milliseconds(mean)} in the mean`}
      {longest === undefined ? "" : `${mean === undefined ? "" : ", "}the longest wait ${milliseconds(longest)}`}
      {mean !== undefined && longest !== undefined && mean > 0 ? `, ${digits(longest / mean)} times the mean` : ""}
    </p>
  );
}

function Fields({ title, entries }: { title: string; entries: readonly (readonly [string, string])[] }): JSX.Element | null {
  return entries.length ? (
    <div>
      <h3>{title}</h3>
      <dl>{entries.map(([name, value]) => [<dt key={name}>{name}</dt>, <dd key={`${name}=`}>{value}</dd>])}</dl>
    </div>
  ) : null;
}

function entriesOf(value: unknown): [string, string][] {
  return value && typeof value === "object" ? Object.entries(value).map(([name, each]) => [name, typeof each === "string" ? each : JSON.stringify(each)]) : [];
}

function shownValue(name: string, value: unknown): string {
  if (typeof value === "number") {
    return name.endsWith("_ms") ? milliseconds(value) : String(value);
  }
  return typeof value === "string" ? value : JSON.stringify(value);
}

function tableOf(trace: Trace): Table {
  const head = ["span_id", "parent_span_id", "service_name", "operation_name", "model_name", "start_time", "duration_ms", "status"];
  return { head, rows: trace.spans.map((span) => head.map((name) => {
    const value = (span as unknown as Record<string, unknown>)[name];
    return typeof value === "number" || typeof value === "string" ? value : "";
  })) };
}
