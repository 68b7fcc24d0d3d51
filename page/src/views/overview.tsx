// A row for each model: what it does, how fast, and how that changed.

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { durationText, withFilter } from "../address.ts";
import type { ModelRow, Overview } from "../answers.ts";
import { curlOf, pathOf, useAnswer } from "../api.ts";
import { Canvas, copy } from "../chart.tsx";
import { csv } from "../display.ts";
import { change, count, digits, milliseconds, plural, share } from "../format.ts";
import { sparkline } from "../sparkline.ts";
import { address, chosen, go, linkTo, range } from "../state.ts";
import { dateAndClock, parseTime, rangeText } from "../time.ts";
import { completeness } from "./ledger.tsx";
import { Failed, Nothing } from "./state_of.tsx";

type Column = { readonly key: string; readonly title: string; readonly group: string; readonly show: (value: number) => string; readonly worse?: 1 | -1 };

const PERCENTILES = ["p50", "p95", "p99"];
const COLUMNS: readonly Column[] = [
  { key: "requests_per_second", title: "req/s", group: "", show: digits },
  { key: "error_rate", title: "errors", group: "", show: (value) => share(value), worse: 1 },
  { key: "tokens_per_second", title: "tokens/s", group: "", show: digits, worse: -1 },
  ...PERCENTILES.map((name): Column => ({ key: `${name}_ms`, title: name, group: "duration", show: milliseconds, worse: 1 })),
  ...[
    ["time_to_first_token", "first token"],
    ["inter_token_latency", "between tokens"],
    ["queue_wait_time", "queue"],
  ].flatMap(([key, group]) =>
    PERCENTILES.slice(0, 2).map((name): Column => ({ key: `${key}_${name}_ms`, title: name, group: group ?? "", show: milliseconds, worse: 1 })),
  ),
];

export function OverviewView(): JSX.Element {
  const sort = useSignal("sample_count");
  const asked = useAnswer<Overview>(() => {
    const { sinceMs, untilMs } = range.value;
    return pathOf("overview", [...chosen(), ["baseline", durationText(Math.max(1, Math.round(untilMs - sinceMs)))]]);
  });
  const answer = asked.data;
  const models = [...(answer?.models ?? [])].sort((one, other) => number(other, sort.value) - number(one, sort.value));
  return (
    <section aria-labelledby="overview-title" aria-busy={asked.isLoading}>
      <h1 id="overview-title">Models</h1>
      <Failed asked={asked} />
      {answer && !models.length && <Nothing what="No request of a model started in this time." />}
      {models.length > 0 && answer && (
        <>
          <div class="tablebox" tabIndex={0} role="region" aria-label="Models, as a table">
            <table class="rows overview">
              <thead>
                <tr>
                  <th scope="col" rowSpan={2}>model</th>
                  <th scope="col" rowSpan={2} class="spark">requests</th>
                  {COLUMNS.slice(0, 3).map((column) => <Head key={column.key} column={column} sort={sort} rowSpan={2} />)}
                  <th scope="colgroup" colSpan={3} class="group">duration</th>
                  <th scope="colgroup" colSpan={2} class="group">first token</th>
                  <th scope="colgroup" colSpan={2} class="group">between tokens</th>
                  <th scope="colgroup" colSpan={2} class="group">queue</th>
                  <th scope="col" rowSpan={2}>last seen (UTC)</th>
                </tr>
                <tr>{COLUMNS.slice(3).map((column) => <Head key={column.key} column={column} sort={sort} />)}</tr>
              </thead>
              <tbody>
                {models.map((model) => <Model key={model.model_name} model={model} />)}
              </tbody>
            </table>
          </div>
          <p class="notes">
            n = {plural(answer.total, answer.counted.spans === "requests" ? "request" : "span")} · {rangeText(range.value)} · {completeness.value} ·
            percentiles ±4.4 % · changes against the {durationText(range.value.untilMs - range.value.sinceMs)} before
            {answer.truncated ? ` · ${answer.model_count - answer.models.length} more models are not shown` : ""}
            <span class="take">
              <button type="button" onClick={() => copy(csv(tableOf(models)))}>Copy CSV</button>
              <button type="button" onClick={() => copy(location.href)}>Link</button>
              <button type="button" onClick={() => copy(curlOf(asked.path))}>curl</button>
            </span>
          </p>
        </>
      )}
    </section>
  );
}

function number(model: ModelRow, key: string): number {
  const value = model[key];
  return typeof value === "number" ? value : Number.NEGATIVE_INFINITY;
}

function Head({ column, sort, rowSpan }: { column: Column; sort: { value: string }; rowSpan?: number }): JSX.Element {
  const isSorted = sort.value === column.key;
  return (
    <th scope="col" class="number" {...(rowSpan ? { rowSpan } : {})} aria-sort={isSorted ? "descending" : "none"}>
      <button type="button" class="sort" onClick={() => { sort.value = isSorted ? "sample_count" : column.key; }}>
        {column.title}
      </button>
    </th>
  );
}

function Model({ model }: { model: ModelRow }): JSX.Element {
  const target = { view: "explore" as const, filters: withFilter(address.value.filters, "model", model.model_name) };
  const size = { width: 132, height: 26 };
  return (
    <tr>
      <th scope="row">
        <a href={linkTo(target)} onClick={(event) => { event.preventDefault(); go(target); }}>{model.model_name}</a>
      </th>
      <td class="spark">
        <Canvas list={sparkline(model.columns.counts, model.columns.errors, size)} label={`${plural(model.sample_count, "request")} over time, ${plural(model.error_count, "failed", "failed")}`} />
        <span class="total">{count(model.sample_count)}</span>
      </td>
      {COLUMNS.map((column) => <Value key={column.key} model={model} column={column} />)}
      <td class="seen">{dateAndClock(parseTime(model.last_seen))}</td>
    </tr>
  );
}

function Value({ model, column }: { model: ModelRow; column: Column }): JSX.Element {
  const value = model[column.key];
  const changed = model.change?.[column.key === "requests_per_second" ? "sample_count" : column.key];
  // Below a fifth, nothing stands out: most of that is chance.
  const notable = changed !== undefined && changed !== null && Math.abs(changed) >= 0.2;
  const isWorse = notable && column.worse !== undefined && Math.sign(changed) === column.worse;
  return (
    <td class={`number ${column.key === "error_rate" && value ? "failed" : ""}`}>
      {typeof value === "number" ? column.show(value) : "–"}
      <span class={`change ${isWorse ? "worse" : ""}`}>{notable ? change(changed) : "\u00a0"}</span>
    </td>
  );
}

function tableOf(models: readonly ModelRow[]): { head: string[]; rows: (string | number)[][] } {
  const keys = ["model_name", "sample_count", "error_count", ...COLUMNS.map((column) => column.key), "last_seen"];
  return {
    head: keys,
    rows: models.map((model) => keys.map((key) => {
      const value = model[key];
      return typeof value === "number" || typeof value === "string" ? value : "";
    })),
  };
}
