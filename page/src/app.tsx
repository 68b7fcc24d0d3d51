// The page: its bars, and the view that the address names.

import { useSignal } from "@preact/signals";
import { type JSX, render } from "preact";
import { useEffect } from "preact/hooks";
import { durationText, type View } from "./address.ts";
import { ApiError, ask } from "./api.ts";
import { FilterBar } from "./filter_bar.tsx";
import { LedgerLine, LedgerView } from "./views/ledger.tsx";
import { DistributionsView } from "./views/distributions.tsx";
import { ExploreView } from "./views/explore.tsx";
import { OverviewView } from "./views/overview.tsx";
import { SloView } from "./views/slo.tsx";
import { StepsView } from "./views/steps.tsx";
import { TailView } from "./views/tail.tsx";
import { TraceView } from "./views/trace.tsx";
import { address, go, isLive, linkTo, notice, range, refresh, setToken, show, token } from "./state.ts";
import { parseDuration, rangeText } from "./time.ts";

const TABS: readonly (readonly [View, string])[] = [
  ["overview", "Overview"],
  ["explore", "Heatmap"],
  ["steps", "Steps"],
  ["distributions", "Distributions"],
  ["tail", "Live tail"],
  ["slo", "SLO"],
  ["ledger", "Ledger"],
];
const LASTS = ["5m", "15m", "1h", "6h", "24h", "7d"];

function App(): JSX.Element {
  const isLocked = useSignal<boolean | undefined>(undefined);
  const given = token.value;
  useEffect(() => {
    ask("ledger?limit=1").then(
      () => { isLocked.value = false; },
      (error: unknown) => { isLocked.value = error instanceof ApiError && error.status === 401; },
    );
  }, [given]);
  if (isLocked.value === undefined) {
    return <main aria-busy="true" />;
  }
  return isLocked.value ? <TokenForm /> : <Page />;
}

function TokenForm(): JSX.Element {
  const text = useSignal("");
  return (
    <main class="locked">
      <h1>infertrace</h1>
      <form onSubmit={(event) => { event.preventDefault(); setToken(text.value); }}>
        <label>
          This collector wants its token
          <input type="password" value={text.value} autocomplete="off" onInput={(event) => { text.value = event.currentTarget.value; }} />
        </label>
        <button type="submit" class="primary">Open</button>
        {token.value !== "" && <p role="alert" class="failed">That is not its token.</p>}
        <p class="hint">It stays in this tab. An address that ends in <code>#token=…</code> brings it along.</p>
      </form>
    </main>
  );
}

function Page(): JSX.Element {
  const view = address.value.view;
  useEffect(() => {
    const title = TABS.find(([name]) => name === view)?.[1] ?? "Trace";
    document.title = `${title} · infertrace`;
  }, [view]);
  return (
    <>
      <header>
        <div class="bar">
          <a class="brand" href={linkTo({ view: "overview" })} onClick={follow("overview")}>infertrace</a>
          <nav aria-label="Views">
            {TABS.map(([name, title]) => (
              <a key={name} href={linkTo({ view: name })} onClick={follow(name)} aria-current={view === name ? "page" : undefined}>
                {title}
              </a>
            ))}
          </nav>
          <RangeBar />
        </div>
        <FilterBar />
        <LedgerLine />
      </header>
      <main id="main">
        {view === "overview" && <OverviewView />}
        {view === "explore" && <ExploreView />}
        {view === "trace" && <TraceView />}
        {view === "steps" && <StepsView />}
        {view === "distributions" && <DistributionsView />}
        {view === "tail" && <TailView />}
        {view === "slo" && <SloView />}
        {view === "ledger" && <LedgerView />}
      </main>
      <Notice />
    </>
  );
}

function follow(view: View): (event: MouseEvent) => void {
  return (event) => {
    if (!event.metaKey && !event.ctrlKey && !event.shiftKey) {
      event.preventDefault();
      show(view);
    }
  };
}

function RangeBar(): JSX.Element {
  const asked = address.value.range;
  const last = "lastMs" in asked ? durationText(asked.lastMs) : "";
  return (
    <div class="range" role="group" aria-label="Time">
      <span class="when" title="The time that all views show">{rangeText(range.value)}</span>
      <label>
        <span class="unseen">How long before now</span>
        <select
          value={last}
          onChange={(event) => {
            const lastMs = parseDuration(event.currentTarget.value);
            if (lastMs !== undefined) {
              refresh();
              go({ range: { lastMs }, selection: undefined });
            }
          }}
        >
          {!LASTS.includes(last) && <option value={last}>{last === "" ? "as chosen" : `last ${last}`}</option>}
          {LASTS.map((each) => <option key={each} value={each}>last {each}</option>)}
        </select>
      </label>
      <button type="button" title="Out to twice the time" aria-label="Zoom out" onClick={zoomOut}>−</button>
      <button type="button" onClick={refresh} title="Show what came since" aria-label="Refresh">↻</button>
      <button type="button" class="live" aria-pressed={isLive.value} title="Refresh every 5 s" onClick={() => { isLive.value = !isLive.value; }}>
        Live
      </button>
    </div>
  );
}

function zoomOut(): void {
  const { sinceMs, untilMs } = range.value;
  const asked = address.value.range;
  const halfMs = (untilMs - sinceMs) / 2;
  go({
    range: "lastMs" in asked ? { lastMs: 2 * asked.lastMs } : { sinceMs: Math.max(0, sinceMs - halfMs), untilMs: untilMs + halfMs },
  });
}

function Notice(): JSX.Element {
  const text = notice.value;
  useEffect(() => {
    const timer = text ? setTimeout(() => { notice.value = ""; }, 12_000) : undefined;
    return () => clearTimeout(timer);
  }, [text]);
  return <div class="notice" role="status" hidden={!text}>{text}</div>;
}

const root = document.getElementById("app");
if (root) {
  render(<App />, root);
}
