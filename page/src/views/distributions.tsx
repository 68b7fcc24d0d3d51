// How a value is distributed, now and in the time before; and the first token over the prompt.

import { computed, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import type { Heatmap, Plane } from "../answers.ts";
import { merged, quantile } from "../buckets.ts";
import { pathOf, useAnswer } from "../api.ts";
import { Chart, useWidth } from "../chart.tsx";
import { type Curve, distributionShapes, distributionTable, type Form } from "../distribution.ts";
import { amount, count, nameOf, plural } from "../format.ts";
import { planeShapes, planeTable } from "../plane.ts";
import { address, chosen, go, range, set } from "../state.ts";
import { rangeText } from "../time.ts";
import { capital, shownValue, VALUES } from "./explore.tsx";
import { completeness } from "./ledger.tsx";
import { Failed, Nothing } from "./state_of.tsx";

const FORMS: readonly (readonly [Form, string])[] = [["cdf", "Cumulated"], ["histogram", "Histogram"], ["percentiles", "Percentiles"]];
const before = computed(() => {
  const { sinceMs, untilMs } = range.value;
  return { sinceMs: Math.max(0, 2 * sinceMs - untilMs), untilMs: sinceMs };
});

function countsOf(answer: Heatmap | undefined): Map<number, number> {
  return merged((answer?.columns ?? []).map((column) => column.cells.map(([bucket, spans]): [number, number] => [bucket, spans])));
}

export function DistributionsView(): JSX.Element {
  const form = FORMS.find(([name]) => name === address.value.settings["mode"])?.[0] ?? "cdf";
  const now = useAnswer<Heatmap>(() => pathOf("heatmap", [...chosen(), ["value", shownValue.value], ["columns", "1"]]));
  const then = useAnswer<Heatmap>(() => pathOf("heatmap", [...chosen(before.value), ["value", shownValue.value], ["columns", "1"]]));
  const isOverlaid = useSignal(true);
  const { box, width } = useWidth();
  const answer = now.data;
  const curves: Curve[] = [
    ...(isOverlaid.value && then.data?.total ? [{ name: "the time before", ink: "baseline" as const, dashed: true, counts: countsOf(then.data) }] : []),
    { name: "now", ink: "selected", counts: countsOf(answer) },
  ];
  return (
    <section aria-labelledby="distributions-title" aria-busy={now.isLoading}>
      <div class="title">
        <h1 id="distributions-title">{capital(nameOf(shownValue.value))}</h1>
        <label>
          <span class="unseen">Value</span>
          <select value={shownValue.value} onChange={(event) => go({ selection: undefined, settings: { ...address.value.settings, value: event.currentTarget.value } })}>
            {VALUES.map((name) => <option key={name} value={name}>{nameOf(name)}</option>)}
          </select>
        </label>
        <div class="switch" role="group" aria-label="Form">
          {FORMS.map(([name, title]) => <button key={name} type="button" aria-pressed={form === name} onClick={() => set("mode", name)}>{title}</button>)}
        </div>
        <label><input type="checkbox" checked={isOverlaid.value} onChange={() => { isOverlaid.value = !isOverlaid.value; }} /> with the time before</label>
        <span class="legend"><span class="key selectedkey">now</span><span class="key baselinekey">before</span></span>
      </div>
      <Failed asked={now} />
      {answer?.total === 0 && <Nothing what="No request in this time says that value." />}
      <div ref={box} class="wide">
        {answer && answer.total > 0 && width > 0 && (
          <Chart
            title={`Distribution of ${nameOf(answer.value)}`}
            label={curves.map((curve) => curveText(curve, answer)).join("; ")}
            list={distributionShapes(curves, form, answer.unit, answer.per_unit, { width, height: 320 })}
            path={now.path}
            table={() => distributionTable(curves, answer.unit, answer.per_unit)}
            notes={[
              `n = ${plural(answer.total, "request")}${then.data && isOverlaid.value ? ` and ${count(then.data.total)} before` : ""}`,
              rangeText(range.value), completeness.value, "from the arrival on; buckets of 9 %",
            ]}
          >
            <p class="hover">{curves.map((curve) => curveText(curve, answer)).join(" · ")}</p>
          </Chart>
        )}
      </div>
      <FirstTokenOverPrompt />
    </section>
  );
}

/** Whether the first token comes late because prompts are long: a line that rises is their length, what lies above it is not. */
function FirstTokenOverPrompt(): JSX.Element | null {
  const asked = useAnswer<Plane>(() => pathOf("heatmap", [...chosen(), ["value", "time_to_first_token_ms"], ["by", "input_tokens"]]));
  const { box, width } = useWidth();
  const answer = asked.data;
  return (
    <section class="plane" aria-labelledby="plane-title" aria-busy={asked.isLoading}>
      <h2 id="plane-title">Time to first token over the prompt</h2>
      <Failed asked={asked} />
      {answer?.total === 0 && <p class="hint">No request in this time says both.</p>}
      <div ref={box} class="wide">
        {answer && answer.total > 0 && width > 0 && (
          <Chart
            title="Time to first token over the prompt"
            label={`${plural(answer.total, "request")}, by tokens of their prompts and time to the first token`}
            list={planeShapes(answer, { width, height: 300 })}
            path={asked.path}
            table={() => planeTable(answer)}
            notes={[
              `n = ${plural(answer.total, "request")}`,
              ...(answer.without_value ? [`${count(answer.without_value)} without both`] : []),
              rangeText(range.value), completeness.value, "cells of 9 %",
            ]}
          />
        )}
      </div>
    </section>
  );
}

function curveText(curve: Curve, { unit, per_unit: perUnit }: Heatmap): string {
  const at = (of: number): string => {
    const value = quantile(curve.counts, of);
    return amount(value === undefined ? undefined : value / perUnit, unit);
  };
  return `${curve.name}: p50 ${at(0.5)}, p95 ${at(0.95)}, p99 ${at(0.99)}`;
}
