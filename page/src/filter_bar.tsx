// The filters: what each is, and how to add one. They are the API's own parameters.

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import { FILTERS, isFilter, withFilter } from "./address.ts";
import type { Facets } from "./answers.ts";
import { ask, pathOf } from "./api.ts";
import { count } from "./format.ts";
import { address, chosen, go, notice } from "./state.ts";

const FIELDS: Record<string, string> = { model: "model_name", service: "service_name", operation: "operation_name", producer: "" };
const OFFERED = [...FILTERS, "tag.", "attribute.", "resource.", "min_duration_ms", "max_duration_ms", "min_time_to_first_token_ms"];

export function FilterBar(): JSX.Element {
  const draft = useSignal("");
  const offered = useSignal<readonly (readonly [string, string])[]>([]);
  const asking = useRef<AbortController | undefined>(undefined);
  const filters = address.value.filters;

  const offer = (text: string): void => {
    draft.value = text;
    asking.current?.abort();
    const [name, prefix] = split(text);
    if (prefix === undefined) {
      offered.value = OFFERED.filter((each) => each.startsWith(name)).map((each) => [each.endsWith(".") ? each : `${each}=`, ""]);
      return;
    }
    const field = FIELDS[name] ?? name;
    if (!field || !isFilter(name) || /^(min|max)_/.test(name)) {
      offered.value = [];
      return;
    }
    asking.current = new AbortController();
    const others = chosen().filter(([each]) => each !== name);
    const path = pathOf("facets", [...others, ["field", field], ["prefix", prefix], ["limit", "20"]]);
    ask<Facets>(path, asking.current.signal).then(
      ({ data }) => { offered.value = data.values.map((each) => [`${name}=${each.value}`, count(each.count)]); },
      () => { offered.value = []; },
    );
  };

  const add = (): void => {
    const [name, text] = split(draft.value);
    if (!isFilter(name) || !text) {
      notice.value = `A filter is NAME=VALUE, with one of ${FILTERS.join(", ")}, tag.KEY, attribute.KEY, resource.KEY, min_… or max_… of a measure`;
      return;
    }
    draft.value = "";
    offered.value = [];
    go({ filters: withFilter(filters, name, text) });
  };

  return (
    <form class="filters" aria-label="Filters" onSubmit={(event) => { event.preventDefault(); add(); }}>
      {filters.map(([name, text]) => (
        <span class="chip" key={name}>
          <span class="chipname">{name}</span> {text}
          <button type="button" aria-label={`Remove the filter ${name}`} onClick={() => go({ filters: filters.filter(([each]) => each !== name) })}>×</button>
        </span>
      ))}
      <input
        type="text"
        list="offered"
        aria-label="Add a filter, such as model=gpt-4"
        placeholder={filters.length ? "and …" : "Filter: model=…, status=ERROR, tag.tenant=…, min_duration_ms=…"}
        value={draft.value}
        autocomplete="off"
        spellcheck={false}
        onFocus={() => offer(draft.value)}
        onInput={(event) => offer(event.currentTarget.value)}
      />
      <datalist id="offered">
        {offered.value.map(([text, spans]) => <option key={text} value={text}>{spans}</option>)}
      </datalist>
      {filters.length > 1 && <button type="button" onClick={() => go({ filters: [] })}>Clear</button>}
      <OperationSwitch />
    </form>
  );
}

/** Statistics count requests unless an operation is named; which of both is always visible. */
function OperationSwitch(): JSX.Element {
  const operation = address.value.filters.find(([name]) => name === "operation")?.[1];
  const all = operation === "*";
  const others = address.value.filters.filter(([name]) => name !== "operation");
  return (
    <label class="counted">
      <input type="checkbox" checked={all} onChange={() => go({ filters: all ? others : [...others, ["operation", "*"]] })} />
      all spans, not only requests
    </label>
  );
}

function split(text: string): [string, string | undefined] {
  const at = text.indexOf("=");
  return at < 0 ? [text.trim(), undefined] : [text.slice(0, at).trim(), text.slice(at + 1)];
}
