// The heatmap; a box in it, and what sets the box apart, and the requests in it.

import { computed, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useMemo, useRef } from "preact/hooks";
import type { Heatmap } from "../answers.ts";
import { pathOf, useAnswer } from "../api.ts";
import { Chart, useWidth } from "../chart.tsx";
import { amount, count, nameOf, plural, share } from "../format.ts";
import {
  type Box, boxOf, cellAt, cellText, type Grid, gridOf, heatmapShapes, heatmapTable, type Mode, selectionOf,
} from "../heatmap.ts";
import { address, chosen, go, range, select, set } from "../state.ts";
import { parseTargets } from "../targets.ts";
import { rangeText } from "../time.ts";
import { CompareView } from "./compare.tsx";
import { completeness } from "./ledger.tsx";
import { RequestList } from "./requests.tsx";
import { Failed, Nothing } from "./state_of.tsx";

const HEIGHT = 300;
const COLUMNS = "160";
export const VALUES = [
  "duration_ms", "time_to_first_token_ms", "inter_token_latency_ms", "max_inter_token_latency_ms", "queue_wait_time_ms",
  "input_tokens", "output_tokens",
];
export const shownValue = computed(() => address.value.settings["value"] ?? "duration_ms");

export function ExploreView(): JSX.Element {
  const asked = useAnswer<Heatmap>(() =>
    pathOf("heatmap", [...chosen(), ["value", shownValue.value], ["columns", COLUMNS]]),
  );
  const mode: Mode = address.value.settings["mode"] === "errors" ? "errors" : "count";
  const answer = asked.data;
  return (
    <section aria-labelledby="explore-title" aria-busy={asked.isLoading}>
      <div class="title">
        <h1 id="explore-title">{capital(nameOf(shownValue.value))}</h1>
        <label>
          <span class="unseen">Value</span>
          <select
            value={shownValue.value}
            onChange={(event) => go({ selection: undefined, settings: { ...address.value.settings, value: event.currentTarget.value } })}
          >
            {VALUES.map((name) => <option key={name} value={name}>{nameOf(name)}</option>)}
          </select>
        </label>
        <div class="switch" role="group" aria-label="Colour">
          <button type="button" aria-pressed={mode === "count"} onClick={() => set("mode", "")}>Count</button>
          <button type="button" aria-pressed={mode === "errors"} onClick={() => set("mode", "errors")}>Errors</button>
        </div>
        {answer && answer.total > 0 && (
          <span class="figures">
            {count(answer.total)} · p50 <b>{amount(answer.p50, answer.unit)}</b> p95 <b>{amount(answer.p95, answer.unit)}</b> p99{" "}
            <b>{amount(answer.p99, answer.unit)}</b> · {share(answer.error_count / answer.total)} failed
          </span>
        )}
      </div>
      <Failed asked={asked} />
      {answer && answer.total === 0 && (
        <Nothing what={answer.without_value ? `${plural(answer.without_value, "request")} in this time, and none says its ${nameOf(answer.value)}.` : "No request started in this time."} />
      )}
      {answer && answer.total > 0 && <HeatmapChart answer={answer} path={asked.path} mode={mode} />}
      {address.value.selection && (
        <div class="selected">
          <CompareView />
          <RequestList />
        </div>
      )}
    </section>
  );
}

type Point = { readonly column: number; readonly bucket: number };

function boxBetween(one: Point, other: Point): Box {
  return {
    firstColumn: Math.min(one.column, other.column),
    lastColumn: Math.max(one.column, other.column),
    firstBucket: Math.min(one.bucket, other.bucket),
    lastBucket: Math.max(one.bucket, other.bucket),
  };
}

function HeatmapChart({ answer, path, mode }: { answer: Heatmap; path: string; mode: Mode }): JSX.Element {
  const { box: element, width } = useWidth();
  const anchor = useSignal<Point | undefined>(undefined); // where a box began
  const cursor = useSignal<Point | undefined>(undefined);
  const isZooming = useRef(false);
  const isKeyed = useSignal(false);
  const grid = useMemo(() => gridOf(answer, { width: Math.max(width, 320), height: HEIGHT }), [answer, width]);
  const drawn = anchor.value && cursor.value ? boxBetween(anchor.value, cursor.value) : undefined;
  const selection = address.value.selection;
  const shown = drawn ?? (selection && boxOf(grid, selection));
  const list = heatmapShapes(answer, grid, mode, shown, isKeyed.value || !drawn ? cursor.value : undefined, targetOf(answer));

  const finish = (one: Point, other: Point, zoom: boolean): void => {
    anchor.value = undefined;
    const chosenBox = selectionOf(grid, boxBetween(one, other));
    if (zoom) {
      go({ range: { sinceMs: chosenBox.sinceMs, untilMs: chosenBox.untilMs }, selection: undefined });
    } else {
      select(chosenBox);
    }
  };
  const at = (event: PointerEvent): Point => {
    const place = (event.currentTarget as HTMLElement).getBoundingClientRect();
    return cellAt(grid, event.clientX - place.left, event.clientY - place.top);
  };
  const key = (event: KeyboardEvent): void => {
    const before = cursor.value ?? { column: grid.columns - 1, bucket: grid.highest - 1 };
    const moves: Record<string, readonly [number, number]> = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1],
      Home: [-grid.columns, 0], End: [grid.columns, 0], PageUp: [0, 8], PageDown: [0, -8],
    };
    const move = moves[event.key];
    if (move) {
      isKeyed.value = true;
      anchor.value = event.shiftKey ? (anchor.value ?? before) : undefined;
      cursor.value = {
        column: Math.max(0, Math.min(grid.columns - 1, before.column + move[0])),
        bucket: Math.max(grid.lowest, Math.min(grid.highest, before.bucket + move[1])),
      };
    } else if (event.key === "Enter" || event.key === " ") {
      finish(anchor.value ?? before, before, event.altKey);
    } else if (event.key === "Escape") {
      anchor.value = undefined;
      select(undefined);
    } else {
      return;
    }
    event.preventDefault();
  };

  return (
    <div ref={element} class="wide">
      <Chart
        title={`${capital(nameOf(answer.value))} over time`}
        label={summary(answer)}
        list={list}
        path={path}
        table={() => heatmapTable(answer)}
        notes={[
          `n = ${plural(answer.total, answer.counted.spans === "requests" ? "request" : "span")}`,
          ...(answer.without_value ? [`${count(answer.without_value)} without a value`] : []),
          rangeText(range.value),
          completeness.value,
          "cells of 9 %, percentiles ±4.4 %",
        ]}
        over={
          <div
            class="over"
            tabIndex={0}
            role="application"
            aria-roledescription="heatmap"
            aria-label="Heatmap: arrow keys move, with shift they draw a box, Enter selects, alt and Enter zooms, Escape lets go"
            onKeyDown={key}
            onBlur={() => { isKeyed.value = false; cursor.value = undefined; anchor.value = undefined; }}
            onPointerDown={(event) => {
              if (event.button === 0) {
                event.currentTarget.setPointerCapture(event.pointerId);
                isZooming.current = event.altKey;
                isKeyed.value = false;
                anchor.value = at(event);
                cursor.value = anchor.value;
              }
            }}
            onPointerMove={(event) => { cursor.value = at(event); }}
            onPointerUp={(event) => { if (anchor.value) { finish(anchor.value, at(event), isZooming.current || event.altKey); } }}
            onPointerCancel={() => { anchor.value = undefined; }}
            onPointerLeave={() => { if (!anchor.value) { cursor.value = undefined; } }}
          />
        }
      >
        <p class="hover" aria-live={isKeyed.value ? "polite" : "off"}>{hoverText(answer, grid, cursor.value, drawn, selection !== undefined)}</p>
      </Chart>
    </div>
  );
}

/** The target that the SLO view was given for this value. */
function targetOf(answer: Heatmap): number | undefined {
  const text = parseTargets(address.value.settings["target"] ?? "").get(answer.value);
  return text === undefined ? undefined : Number(text);
}

function hoverText(answer: Heatmap, grid: Grid, cursor: Point | undefined, drawn: Box | undefined, isSelected: boolean): string {
  if (drawn) {
    return `${plural(countIn(answer, drawn), "request")} in the box`;
  }
  if (cursor) {
    return cellText(answer, grid, cursor);
  }
  return isSelected
    ? "Escape lets the box go. Drag another one, or alt-drag to zoom."
    : "Drag a box around the slow ones to see what sets them apart. Alt-drag zooms. With the keyboard: arrows, shift, Enter.";
}

function countIn(answer: Heatmap, box: Box): number {
  let sum = 0;
  for (const column of answer.columns) {
    if (column.index >= box.firstColumn && column.index <= box.lastColumn) {
      for (const [bucket, spans] of column.cells) {
        sum += bucket >= box.firstBucket && bucket <= box.lastBucket ? spans : 0;
      }
    }
  }
  return sum;
}

function summary(answer: Heatmap): string {
  return `${plural(answer.total, "span")}; ${nameOf(answer.value)}: half at most ${amount(answer.p50, answer.unit)}, 95 % at most ${amount(answer.p95, answer.unit)}, 99 % at most ${amount(answer.p99, answer.unit)}; ${plural(answer.error_count, "error")}`;
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
