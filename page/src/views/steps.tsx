// The steps of engines, who was in them, and what the GPUs did meanwhile.

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useMemo, useRef } from "preact/hooks";
import type { Gpus, Member, Step, Steps } from "../answers.ts";
import { ask, pathOf, useAnswer } from "../api.ts";
import { Chart, useWidth } from "../chart.tsx";
import { count, milliseconds, plural, share } from "../format.ts";
import { columnLanes, columnTable, gpuLanes, gpuTable, LANE_LEFT, parseInterval, stepAt, stepLanes, stepsOf, stepTable } from "../lanes.ts";
import { download, openInPerfetto } from "../perfetto.ts";
import { address, chosen, go, linkTo, openTrace, range } from "../state.ts";
import { apiTime, clock, parseTime, type Range, rangeText } from "../time.ts";
import { completeness } from "./ledger.tsx";
import { Failed, Nothing } from "./state_of.tsx";

const STEP_FILTERS = ["model", "engine", "producer"];

function times(): [string, string][] {
  return [["since", apiTime(range.value.sinceMs)], ["until", apiTime(range.value.untilMs)]];
}

/** A GPU is read once a second: shorter columns would show gaps where there are none. */
function gpuColumns(): number {
  return Math.max(1, Math.min(300, Math.floor((range.value.untilMs - range.value.sinceMs) / 1_000)));
}

/** Everything that started in the range: the newest 50,000 spans, where there are more. */
function exportPath(): string {
  return pathOf("export/perfetto", chosen());
}

export function StepsView(): JSX.Element {
  const asked = useAnswer<Steps>(() => {
    const filters = address.value.filters.filter(([name]) => STEP_FILTERS.includes(name));
    return pathOf("steps", [...filters.map(([name, text]): [string, string] => [name, text]), ...times(), ["columns", "300"]]);
  });
  const gpus = useAnswer<Gpus>(() => {
    const filters = address.value.filters.filter(([name]) => name === "model" || name === "service");
    return pathOf("gpu", [...filters.map(([name, text]): [string, string] => [name, text]), ...times(), ["columns", String(gpuColumns())]]);
  });
  const { box, width } = useWidth();
  const answer = asked.data;
  const shownRange: Range | undefined = answer && { sinceMs: parseTime(answer.since), untilMs: parseTime(answer.until) };
  return (
    <section aria-labelledby="steps-title" aria-busy={asked.isLoading}>
      <div class="title">
        <h1 id="steps-title">Steps</h1>
        {answer && <span class="figures">{plural(answer.step_count, "step")}{answer.columns ? `: too many to show each; drag to zoom in (each from 2,000 down)` : ""}</span>}
        <span class="legend"><span class="key prefillkey">prefill</span><span class="key decodekey">decode</span></span>
        <span class="take">
          <button type="button" onClick={() => openInPerfetto(exportPath(), "infertrace")}>Open in Perfetto</button>
          <button type="button" onClick={() => void download(exportPath(), "infertrace.pftrace")}>Download for Perfetto</button>
        </span>
      </div>
      <p class="hint">
        A bar is a step: as wide as it took, as high as the batch was full, coloured by the tokens that it read and generated. Drag to zoom in.
        {address.value.filters.some(([name]) => !STEP_FILTERS.includes(name)) ? " Of the filters, only model, engine and producer count here." : ""}
      </p>
      <Failed asked={asked} />
      <div ref={box} class="wide">
        {answer?.step_count === 0 && <Nothing what="No step of an engine started in this time." />}
        {answer?.steps && answer.steps.length > 0 && shownRange && width > 0 && (
          <StepChart steps={answer.steps} range={shownRange} width={width} path={asked.path} />
        )}
        {answer?.columns && answer.columns.length > 0 && shownRange && width > 0 && (
          <Chart
            title="Steps over time"
            label={`${plural(answer.step_count, "step")} in ${plural(answer.columns.length, "column")}`}
            list={columnLanes(answer.columns, (answer.column_seconds ?? 1) * 1_000, shownRange, width)}
            path={asked.path}
            table={() => columnTable(answer.columns ?? [])}
            notes={[`n = ${plural(answer.step_count, "step")}`, rangeText(shownRange), completeness.value, "bars: mean duration, marks: the longest"]}
            over={<Zoom range={shownRange} width={width} />}
          />
        )}
        <Failed asked={gpus} />
        {gpus.data && gpus.data.devices.length > 0 && width > 0 && shownRange && (
          <Chart
            title="GPUs"
            label={plural(gpus.data.device_count, "device")}
            list={gpuLanes(gpus.data, shownRange, width)}
            path={gpus.path}
            table={() => gpuTable(gpus.data ?? { column_seconds: 0, total: 0, device_count: 0, devices: [] })}
            notes={[`n = ${plural(gpus.data.total, "span")} that say a reading`, rangeText(shownRange), completeness.value, "a gap: no span ended then"]}
          />
        )}
      </div>
    </section>
  );
}

/** Drag over a time to see it alone; with the keyboard, plus and minus. */
function Zoom({ range: shown, width, onMove, onPick }: {
  readonly range: Range;
  readonly width: number;
  readonly onMove?: (x: number, y: number) => void;
  readonly onPick?: (x: number, y: number) => void;
}): JSX.Element {
  const from = useSignal<number | undefined>(undefined);
  const to = useSignal(0);
  const room = width - LANE_LEFT - 8;
  const timeOf = (x: number): number => shown.sinceMs + Math.max(0, Math.min(1, (x - LANE_LEFT) / room)) * (shown.untilMs - shown.sinceMs);
  const place = (event: PointerEvent): [number, number] => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const zoom = (sinceMs: number, untilMs: number): void => go({ range: { sinceMs, untilMs }, selection: undefined });
  return (
    <div
      class="over"
      tabIndex={0}
      role="application"
      aria-label="Steps: plus and minus zoom, left and right move"
      onKeyDown={(event) => {
        const length = shown.untilMs - shown.sinceMs;
        if (event.key === "+" || event.key === "w") {
          zoom(shown.sinceMs + length / 4, shown.untilMs - length / 4);
        } else if (event.key === "-" || event.key === "s") {
          zoom(shown.sinceMs - length / 2, shown.untilMs + length / 2);
        } else if (event.key === "ArrowLeft" || event.key === "a") {
          zoom(shown.sinceMs - length / 4, shown.untilMs - length / 4);
        } else if (event.key === "ArrowRight" || event.key === "d") {
          zoom(shown.sinceMs + length / 4, shown.untilMs + length / 4);
        } else {
          return;
        }
        event.preventDefault();
      }}
      onPointerDown={(event) => {
        if (event.button === 0) {
          event.currentTarget.setPointerCapture(event.pointerId);
          from.value = place(event)[0];
          to.value = from.value;
        }
      }}
      onPointerMove={(event) => {
        const [x, y] = place(event);
        to.value = x;
        onMove?.(x, y);
      }}
      onPointerUp={(event) => {
        const [x, y] = place(event);
        const start = from.value;
        from.value = undefined;
        if (start !== undefined && Math.abs(x - start) > 4) {
          zoom(timeOf(Math.min(x, start)), timeOf(Math.max(x, start)));
        } else {
          onPick?.(x, y);
        }
      }}
      onPointerCancel={() => { from.value = undefined; }}
      onPointerLeave={() => onMove?.(-1, -1)}
    >
      {from.value !== undefined && (
        <span class="band" style={{ left: `${Math.min(from.value, to.value)}px`, width: `${Math.abs(to.value - from.value)}px` }} />
      )}
    </div>
  );
}

function StepChart({ steps, range: shown, width, path }: { steps: readonly Step[]; range: Range; width: number; path: string }): JSX.Element {
  const asked = address.value.settings["steps"] ?? "";
  // Those of the request that somebody came from, until a step is chosen.
  const interval = parseInterval(asked);
  const lit = useSignal<ReadonlySet<string>>(new Set());
  const shownLit = lit.value.size || !interval ? lit.value : stepsOf(steps, interval);
  const hovered = useSignal<Step | undefined>(undefined);
  const picked = useSignal<Step | undefined>(undefined);
  const members = useSignal<readonly Member[]>([]);
  const failure = useSignal("");
  const asking = useRef<AbortController | undefined>(undefined);
  const lanes = useMemo(() => stepLanes(steps, shown, width, shownLit), [steps, shown.sinceMs, shown.untilMs, width, lit.value, asked]);

  const pick = (step: Step | undefined): void => {
    picked.value = step;
    members.value = [];
    failure.value = "";
    lit.value = new Set(step ? [step.span_id] : []);
    asking.current?.abort();
    if (!step) {
      return;
    }
    asking.current = new AbortController();
    const at = parseTime(step.start_time);
    const parameters: [string, string][] = [["since", apiTime(at - 1)], ["until", apiTime(at + 1)]];
    if (step.producer_id) {
      parameters.push(["producer", step.producer_id]);
    }
    ask<{ members: Member[] }>(pathOf(`steps/${encodeURIComponent(step.engine)}/${step.step_index}/members`, parameters), asking.current.signal).then(
      ({ data }) => { members.value = data.members; },
      (error: unknown) => { failure.value = error instanceof Error && error.name !== "AbortError" ? error.message : ""; },
    );
  };
  /** The steps that a member was in light up: those between its first and last one. */
  const light = (member: Member | undefined): void => {
    const of = picked.value;
    if (!of) {
      return;
    }
    const { first_step: first, last_step: last } = member ?? {};
    lit.value =
      first !== undefined && last !== undefined
        ? stepsOf(steps, { engine: of.engine, producer: of.producer_id ?? "", first, last })
        : new Set([of.span_id]);
  };

  return (
    <>
      <Chart
        title="Steps"
        label={plural(steps.length, "step")}
        list={lanes.list}
        path={path}
        table={() => stepTable(steps)}
        notes={[`n = ${plural(steps.length, "step")}`, rangeText(shown), completeness.value]}
        over={
          <Zoom
            range={shown}
            width={width}
            onMove={(x, y) => { hovered.value = stepAt(lanes.placed, x, y); }}
            onPick={(x, y) => pick(stepAt(lanes.placed, x, y))}
          />
        }
      >
        <p class="hover">
          {hovered.value ? stepText(hovered.value) : "Click a step to see who was in it; point at a request to see its steps."}
          <StepChooser steps={steps} picked={picked.value} onPick={pick} />
        </p>
      </Chart>
      {picked.value && (
        <section class="members" aria-labelledby="members-title">
          <h2 id="members-title">Step {picked.value.step_index} of {picked.value.model_name ?? ""} {picked.value.engine}</h2>
          <p>{stepText(picked.value)}</p>
          {failure.value && <p class="failed">{failure.value}</p>}
          <table class="rows">
            <thead><tr><th scope="col">request</th><th scope="col">phase</th><th scope="col" class="number">prefilled here</th><th scope="col" class="number">its steps</th><th scope="col" class="number">took</th></tr></thead>
            <tbody>
              {members.value.map((member) => {
                const target = { view: "trace" as const, settings: { ...address.value.settings, trace: member.trace_id, span: member.span_id } };
                return (
                  <tr key={member.span_id} onPointerEnter={() => light(member)} onPointerLeave={() => light(undefined)}>
                    <th scope="row">
                      <a href={linkTo(target)} onFocus={() => light(member)} onClick={(event) => { event.preventDefault(); openTrace(member.trace_id, member.span_id); }}>
                        {member.request_id ?? member.trace_id.slice(0, 12)}
                      </a>
                    </th>
                    <td>{member.phase}</td>
                    <td class="number">{member.prefill_tokens ? `${count(member.prefill_tokens)} tokens` : "–"}</td>
                    <td class="number">{member.first_step === undefined ? "–" : `${member.first_step} – ${member.last_step}`}</td>
                    <td class="number">{milliseconds(member.duration_ms)}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </section>
      )}
    </>
  );
}

/** The same with the keyboard: the slowest steps by name. */
function StepChooser({ steps, picked, onPick }: { steps: readonly Step[]; picked: Step | undefined; onPick: (step: Step | undefined) => void }): JSX.Element {
  const slowest = useMemo(() => [...steps].sort((one, other) => other.duration_ms - one.duration_ms).slice(0, 50), [steps]);
  return (
    <label class="chooser">
      <span class="unseen">A step</span>
      <select value={picked?.span_id ?? ""} onChange={(event) => onPick(steps.find((step) => step.span_id === event.currentTarget.value))}>
        <option value="">the slowest steps</option>
        {picked && !slowest.includes(picked) && <option value={picked.span_id}>step {picked.step_index}</option>}
        {slowest.map((step) => <option key={step.span_id} value={step.span_id}>step {step.step_index}, {milliseconds(step.duration_ms)}</option>)}
      </select>
    </label>
  );
}

function stepText(step: Step): string {
  return [
    `step ${step.step_index} of ${step.engine}`,
    clock(parseTime(step.start_time), 1),
    milliseconds(step.duration_ms),
    step.batch_size === undefined ? "" : `batch of ${step.batch_size}${step.batch_fill_ratio === undefined ? "" : ` (${share(step.batch_fill_ratio)} full)`}`,
    step.prefill_tokens === undefined ? "" : `${count(step.prefill_tokens)} tokens read`,
    step.decode_tokens === undefined ? "" : `${count(step.decode_tokens)} generated`,
    step.queue_depth === undefined ? "" : `${count(step.queue_depth)} waiting`,
    step.kv_cache_usage === undefined ? "" : `KV cache ${share(step.kv_cache_usage)}`,
  ].filter(Boolean).join(" · ");
}
