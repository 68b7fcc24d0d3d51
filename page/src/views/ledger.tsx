// What is stored of what was produced: one line in every view, and an account of each producer.

import { computed, signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import type { Ledger } from "../answers.ts";
import { ask } from "../api.ts";
import { count, share } from "../format.ts";
import { completenessOf, droppedOf, isIncomplete, totalsOf } from "../ledger.ts";
import { address, linkTo, range, show, token } from "../state.ts";
import { dateAndClock, parseTime } from "../time.ts";

const POLL_MS = 5_000;
const MAX_PRODUCERS = "1000";

const ledger = signal<Ledger | undefined>(undefined);
const failure = signal("");
/** What every chart says of how complete its range is. */
export const completeness = computed(() => completenessOf(ledger.value, range.value));

function poll(): void {
  if (document.hidden) {
    return;
  }
  ask<Ledger>(`ledger?limit=${MAX_PRODUCERS}`).then(
    ({ data }) => {
      ledger.value = data;
      failure.value = "";
    },
    (error: unknown) => { failure.value = error instanceof Error ? error.message : "no answer"; },
  );
}

export function LedgerLine(): JSX.Element {
  const given = token.value;
  useEffect(() => {
    poll();
    const timer = setInterval(poll, POLL_MS);
    return () => clearInterval(timer);
  }, [given]);
  const totals = ledger.value && totalsOf(ledger.value);
  const isWhole = completeness.value === "complete";
  return (
    <a
      class={`ledger ${isWhole ? "" : "open"}`}
      href={linkTo({ view: "ledger" })}
      aria-current={address.value.view === "ledger" ? "page" : undefined}
      onClick={(event) => { event.preventDefault(); show("ledger"); }}
    >
      <span class="state" aria-hidden="true">{isWhole ? "●" : "◐"}</span>
      {failure.value !== "" && <span class="failed">The collector does not answer: {failure.value}</span>}
      {totals && failure.value === "" && (
        <span>
          <b>{count(totals.produced)}</b> produced = <b>{count(totals.stored)}</b> stored + <b>{count(totals.pending)}</b> pending +{" "}
          <b class={totals.dropped ? "failed" : ""}>{count(totals.dropped)}</b> dropped
          {totals.unnumbered > 0 && <> · {count(totals.unnumbered)} more without numbers</>}
        </span>
      )}
      <span class="rangestate">this range: {completeness.value}</span>
    </a>
  );
}

export function LedgerView(): JSX.Element {
  const producers = ledger.value?.producers ?? [];
  const reasons = Object.entries(ledger.value ? totalsOf(ledger.value).reasons : {});
  return (
    <section aria-labelledby="ledger-title">
      <h1 id="ledger-title">Ledger</h1>
      <p class="lead">
        Every span that a producer ended is stored, on its way, or dropped for a named reason. Senders of OTLP do not
        number their spans, so what they produced is not known.
      </p>
      {reasons.length > 0 && <p>Dropped by reason: {reasons.map(([reason, spans]) => `${reason} ${count(spans)}`).join(", ")}</p>}
      <div class="tablebox" tabIndex={0} role="region" aria-label="Producers">
        <table class="rows">
          <thead>
            <tr>
              {["service", "producer", "state", "produced", "stored", "pending", "dropped", "gaps", "duplicates", "complete", "last seen (UTC)"].map((name, place) => (
                <th scope="col" key={name} class={place > 2 && place < 10 ? "number" : ""}>{name}</th>
              ))}
            </tr>
          </thead>
          <tbody>
            {producers.map((each) => (
              <tr key={each.producer_id} class={isIncomplete(each) ? "incomplete" : ""}>
                <td>{each.service_name || "no name"}</td>
                <td><code>{each.producer_id.slice(0, 12)}</code></td>
                <td>{each.state}</td>
                <td class="number">{each.produced === null ? "–" : count(each.produced)}</td>
                <td class="number">{count(each.stored)}</td>
                <td class="number">{each.pending === null ? "–" : count(each.pending)}</td>
                <td class="number">{each.numbered ? count(droppedOf(each)) : "–"}</td>
                <td class="number">{each.gaps === null ? "–" : count(each.gaps.length)}</td>
                <td class="number">{count(each.duplicates)}</td>
                <td class="number">{share(each.completeness)}</td>
                <td>{dateAndClock(parseTime(each.last_seen))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {producers.length === 0 && <p>No producer has sent anything yet.</p>}
    </section>
  );
}
