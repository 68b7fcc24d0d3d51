// What sets the selection apart: shares of texts and tags, and distributions of numbers.

import type { JSX } from "preact";
import { isFilter, withFilter } from "../address.ts";
import type { ComparedValue, Comparison } from "../answers.ts";
import { curlOf, pathOf, useAnswer } from "../api.ts";
import { Canvas, copy } from "../chart.tsx";
import { csv, type Table } from "../display.ts";
import { mirrored } from "../distribution.ts";
import { amount, count, nameOf, plural, share } from "../format.ts";
import { comparedParameters } from "../selection.ts";
import { address, chosen, go, range, set } from "../state.ts";
import { apiTime } from "../time.ts";
import { completeness } from "./ledger.tsx";
import { shownValue } from "./explore.tsx";
import { Failed } from "./state_of.tsx";

const FILTER_OF: Record<string, string> = {
  model_name: "model", service_name: "service", operation_name: "operation", producer_id: "producer",
};

export function CompareView(): JSX.Element {
  const asked = useAnswer<Comparison>(() => {
    const { selection, settings } = address.value;
    if (!selection) {
      return undefined;
    }
    const lengthMs = range.value.untilMs - range.value.sinceMs;
    const before: [string, string][] =
      settings["against"] === "before"
        ? [["baseline_since", apiTime(range.value.sinceMs - lengthMs)], ["baseline_until", apiTime(range.value.sinceMs)]]
        : [];
    return pathOf("compare", [...chosen(), ...comparedParameters(selection, shownValue.value), ...before]);
  });
  const answer = asked.data;
  const isBefore = address.value.settings["against"] === "before";
  return (
    <section class="compare" aria-labelledby="compare-title" aria-busy={asked.isLoading}>
      <div class="title">
        <h2 id="compare-title">What sets them apart</h2>
        <div class="switch" role="group" aria-label="Compare with">
          <button type="button" aria-pressed={!isBefore} onClick={() => set("against", "")}>the rest</button>
          <button type="button" aria-pressed={isBefore} onClick={() => set("against", "before")}>the time before</button>
        </div>
      </div>
      <Failed asked={asked} />
      {answer && (
        <>
          <p class="legend">
            <span class="key selectedkey">{count(answer.selected_total)} selected</span>
            <span class="key baselinekey">{count(answer.baseline_total)} {isBefore ? "before" : "others"}</span>
            {answer.selected_errors > 0 && <span>{share(answer.selected_errors / Math.max(1, answer.selected_total))} of the selected failed, {share(answer.baseline_errors / Math.max(1, answer.baseline_total))} of the others</span>}
          </p>
          {answer.measures.map((each) => (
            <div class="measure" key={each.measure}>
              <h3>{nameOf(each.measure)}</h3>
              <Canvas
                list={mirrored(each.selected.cells, each.baseline.cells, { width: 200, height: 40 })}
                label={`${nameOf(each.measure)}: half of the selected at most ${amount(each.selected.p50, each.unit)}, half of the others at most ${amount(each.baseline.p50, each.unit)}`}
              />
              <p>
                <b class="selectedink">{amount(each.selected.p50, each.unit)}</b> against <b class="baselineink">{amount(each.baseline.p50, each.unit)}</b>
                <span class="n">medians of {count(each.selected.total)} and {count(each.baseline.total)}</span>
              </p>
            </div>
          ))}
          {answer.dimensions.map((each) => (
            <div class="dimension" key={each.dimension}>
              <h3>{nameOf(each.dimension)}</h3>
              {each.values.map((value) => <Value key={value.value} dimension={each.dimension} value={value} />)}
              {each.truncated && <p class="n">and more of its {count(each.value_count)} values</p>}
            </div>
          ))}
          {!answer.measures.length && !answer.dimensions.length && (
            <p>{answer.selected_total < 5 ? "Too few are selected to tell what sets them apart: take five at least." : "Nothing that chance does not explain."}</p>
          )}
          <p class="notes">
            n = {count(answer.selected_total)} and {count(answer.baseline_total)} · only differences beyond chance, at 99 %
            {answer.sampled ? ` · from ${share(answer.sampled_share)} of the spans` : ""}
            {answer.keyed_sampled_share < 1 ? ` · tags and attributes from ${share(answer.keyed_sampled_share)}` : ""} · {completeness.value}
            <span class="take">
              <button type="button" onClick={() => copy(csv(tableOf(answer)))}>Copy CSV</button>
              <button type="button" onClick={() => copy(location.href)}>Link</button>
              <button type="button" onClick={() => copy(curlOf(asked.path))}>curl</button>
            </span>
          </p>
        </>
      )}
    </section>
  );
}

function Value({ dimension, value }: { dimension: string; value: ComparedValue }): JSX.Element {
  const name = FILTER_OF[dimension] ?? dimension;
  const bar = (of: number): JSX.CSSProperties => ({ width: `${Math.max(0.5, 100 * of)}%` });
  return (
    <button
      type="button"
      class="value"
      disabled={!isFilter(name)}
      title={`Only ${name} = ${value.value}`}
      aria-label={`${value.value}: ${share(value.selected_share)} of the selected, ${share(value.baseline_share)} of the others; show only these`}
      onClick={() => go({ filters: withFilter(address.value.filters, name, value.value) })}
    >
      <span class="name">{value.value || "(empty)"}</span>
      <span class="bars" aria-hidden="true">
        <span class="selectedbar" style={bar(value.selected_share)} />
        <span class="baselinebar" style={bar(value.baseline_share)} />
      </span>
      <span class="shares">
        <b class="selectedink">{share(value.selected_share)}</b> <span class="baselineink">{share(value.baseline_share)}</span>
      </span>
      <span class="n">{plural(value.selected, "span")} of {count(value.selected + value.baseline)}</span>
    </button>
  );
}

function tableOf(answer: Comparison): Table {
  return {
    head: ["field", "value", "selected", "others", "share of selected", "share of others"],
    rows: answer.dimensions.flatMap((each) =>
      each.values.map((value) => [each.dimension, value.value, value.selected, value.baseline, value.selected_share, value.baseline_share]),
    ),
  };
}
