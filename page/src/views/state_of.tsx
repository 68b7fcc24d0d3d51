// What stands in a view in place of an answer: that it is coming, that there is none, what went wrong.

import type { JSX } from "preact";
import type { Asked } from "../api.ts";
import { address, go, range } from "../state.ts";

export function Failed({ asked }: { asked: Asked<unknown> }): JSX.Element | null {
  if (!asked.error) {
    return null;
  }
  return (
    <p class="failed" role="alert">
      {asked.error.message}
    </p>
  );
}

export function Nothing({ what }: { what: string }): JSX.Element {
  const { filters } = address.value;
  return (
    <div class="nothing">
      <p>{what}</p>
      <p>
        {filters.length > 0 && <button type="button" onClick={() => go({ filters: [] })}>Remove the filters</button>}{" "}
        <button
          type="button"
          onClick={() => {
            const { sinceMs, untilMs } = range.value;
            go({ range: { lastMs: Math.max(86_400_000, 4 * (untilMs - sinceMs)) }, selection: undefined });
          }}
        >
          Look further back
        </button>
      </p>
    </div>
  );
}
