// How many requests meet their targets, and how fast the budget of those that do not is spent.

import { computed } from "@preact/signals";
import type { JSX } from "preact";
import type { Slo } from "../answers.ts";
import { curlOf, pathOf, useAnswer } from "../api.ts";
import { copy } from "../chart.tsx";
import { csv, type Table } from "../display.ts";
import { count, digits, nameOf, plural, share } from "../format.ts";
import { address, chosen, range, set } from "../state.ts";
import { formatTargets, parseTargets, TARGETS } from "../targets.ts";
import { rangeText } from "../time.ts";
import { completeness } from "./ledger.tsx";
import { Failed, Nothing } from "./state_of.tsx";

const OBJECTIVES = ["0.9", "0.95", "0.99", "0.995", "0.999"];

const targets = computed((): ReadonlyMap<string, string> => parseTargets(address.value.settings["target"] ?? "duration_ms:2000"));
const objective = computed(() => address.value.settings["objective"] ?? "0.99");

export function SloView(): JSX.Element {
  const asked = useAnswer<Slo>(() =>
    pathOf("slo", [...chosen(), ["objective", objective.value], ...[...targets.value].map(([name, text]): [string, string] => [`target_${name}`, text])]),
  );
  const answer = asked.data;
  return (
    <section aria-labelledby="slo-title" aria-busy={asked.isLoading}>
      <h1 id="slo-title">Objectives</h1>
      <div class="targets">
        <label>
          objective
          <select value={objective.value} onChange={(event) => set("objective", event.currentTarget.value)}>
            {OBJECTIVES.map((each) => <option key={each} value={each}>{share(Number(each))}</option>)}
          </select>
        </label>
        {TARGETS.map((name) => (
          <label key={name}>
            {nameOf(name)} at most
            <input
              type="number" min="0" step="any" placeholder="–" value={targets.value.get(name) ?? ""}
              onChange={(event) => {
                const next = new Map(targets.value);
                if (Number(event.currentTarget.value) > 0) {
                  next.set(name, event.currentTarget.value);
                } else {
                  next.delete(name);
                }
                set("target", formatTargets(next));
              }}
            />
            ms
          </label>
        ))}
      </div>
      <Failed asked={asked} />
      {answer?.range.total === 0 && <Nothing what="No request started in this time." />}
      {answer && answer.range.total > 0 && (
        <>
          <div class="tiles">
            <Tile title="good" value={share(answer.range.attained)} note={`${count(answer.range.good)} of ${plural(answer.range.total, "request")}`} isBad={(answer.range.attained ?? 1) < answer.objective} />
            <Tile title="goodput" value={`${digits(answer.range.goodput)} /s`} note="good requests a second" />
            <Tile title="burn rate" value={answer.range.burn_rate === null ? "–" : digits(answer.range.burn_rate)} note="1 spends the budget of 30 days in 30 days" isBad={(answer.range.burn_rate ?? 0) > 1} />
            <Tile title="errors" value={count(answer.range.errors)} note="count as not good" />
          </div>
          <div class="tablebox" tabIndex={0} role="region" aria-label="Windows and alerts">
            <table class="rows narrow">
              <thead><tr><th scope="col">window to the end of the range</th><th scope="col" class="number">requests</th><th scope="col" class="number">good</th><th scope="col" class="number">burn rate</th></tr></thead>
              <tbody>
                {answer.windows.map((window) => (
                  <tr key={window.window}>
                    <th scope="row">{window.window}</th>
                    <td class="number">{count(window.total)}</td>
                    <td class="number">{share(window.attained)}</td>
                    <td class={`number ${(window.burn_rate ?? 0) > 1 ? "failed" : ""}`}>{window.burn_rate === null ? "–" : digits(window.burn_rate)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
            <table class="rows narrow">
              <thead><tr><th scope="col">alert</th><th scope="col">windows</th><th scope="col">state</th></tr></thead>
              <tbody>
                {answer.alerts.map((alert) => (
                  <tr key={alert.long}>
                    <th scope="row">burns faster than {alert.burn_rate}</th>
                    <td>{alert.long} and {alert.short}</td>
                    <td class={alert.firing ? "failed" : "good"}>{alert.firing ? "▲ fires" : "quiet"}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <p class="notes">
            n = {plural(answer.range.total, "request")} · {rangeText(range.value)} · {completeness.value}
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

function Tile({ title, value, note, isBad = false }: { title: string; value: string; note: string; isBad?: boolean }): JSX.Element {
  return (
    <div class={`tile ${isBad ? "bad" : ""}`}>
      <span class="tiletitle">{title}</span>
      <span class="tilevalue">{value}</span>
      <span class="n">{note}</span>
    </div>
  );
}

function tableOf(answer: Slo): Table {
  return {
    head: ["window", "requests", "good", "errors", "burn rate"],
    rows: [{ window: "range", ...answer.range }, ...answer.windows].map((each) => [each.window, each.total, each.good, each.errors, each.burn_rate ?? ""]),
  };
}
