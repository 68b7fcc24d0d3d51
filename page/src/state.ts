// What the page shows now: the address as signals, what is loaded from the API, and the clock of a
// range that ends now.

import { computed, effect, type ReadonlySignal, signal } from "@preact/signals";
import { type Address, formatAddress, parseAddress, type Selection, type View } from "./address.ts";
import { apiTime, type Range } from "./time.ts";

const TOKEN_KEY = "infertrace-token";

export const address = signal<Address>(parseAddress(location.search));
/** The end of a range that ends now; it moves when the page refreshes, not while one reads. */
export const nowMs = signal(Date.now());
export const isLive = signal(false);
export const token = signal(takeToken());
export const notice = signal("");

export const range: ReadonlySignal<Range> = computed(() => {
  const asked = address.value.range;
  return "lastMs" in asked ? { sinceMs: nowMs.value - asked.lastMs, untilMs: nowMs.value } : asked;
});

/** The token comes in the fragment, which no server sees, and stays in this tab. */
function takeToken(): string {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) {
    sessionStorage.setItem(TOKEN_KEY, given);
    history.replaceState(null, "", `${location.pathname}${location.search}`);
  }
  return sessionStorage.getItem(TOKEN_KEY) ?? "";
}

export function setToken(text: string): void {
  sessionStorage.setItem(TOKEN_KEY, text);
  token.value = text;
}

/** Go to another state; the browser's back button returns from it. */
export function go(change: Partial<Address>): void {
  const next = { ...address.value, ...change };
  const text = formatAddress(next);
  if (text !== location.search) {
    history.pushState(null, "", text);
  }
  address.value = next;
}

/** The same, in place of the state before: for what is still being adjusted. */
export function adjust(change: Partial<Address>): void {
  address.value = { ...address.value, ...change };
  history.replaceState(null, "", formatAddress(address.value));
}

export function set(name: string, text: string): void {
  go({ settings: { ...address.value.settings, [name]: text } });
}

export function show(view: View): void {
  go({ view });
}

export function select(selection: Selection | undefined): void {
  go({ selection });
}

export function openTrace(traceId: string, spanId = ""): void {
  go({ view: "trace", settings: { ...address.value.settings, trace: traceId, span: spanId } });
}

export function refresh(): void {
  nowMs.value = Date.now();
}

export function linkTo(change: Partial<Address>): string {
  return formatAddress({ ...address.value, ...change });
}

window.addEventListener("popstate", () => {
  address.value = parseAddress(location.search);
});

/** The filters and the range as parameters of the API. */
export function chosen(given: Range = range.value): [string, string][] {
  return [
    ...address.value.filters.map(([name, text]): [string, string] => [name, text]),
    ["since", apiTime(given.sinceMs)],
    ["until", apiTime(given.untilMs)],
  ];
}

/** The filters as `/spans` takes them: requests, unless an operation is asked for. */
export function chosenSpans(given: Range = range.value): [string, string][] {
  const parameters = chosen(given);
  const operation = parameters.find(([name]) => name === "operation")?.[1];
  if (operation === undefined) {
    return [...parameters, ["requests", "1"]];
  }
  return operation === "*" ? parameters.filter(([name]) => name !== "operation") : parameters;
}

effect(() => {
  if (!isLive.value) {
    return undefined;
  }
  const timer = setInterval(() => document.hidden || refresh(), 5_000);
  return () => clearInterval(timer);
});
