// A box as parameters of the API: the selection of `/compare`, and the filters of `/spans`.

import type { Selection } from "./address.ts";
import { apiTime } from "./time.ts";

/** As many digits as keep a bound inside of its bucket. */
function text(value: number): string {
  return String(Number(value.toPrecision(12)));
}

export function comparedParameters(selection: Selection, value: string): [string, string][] {
  const { sinceMs, untilMs, least, most } = selection;
  return [
    ["value", value],
    ["select_since", apiTime(sinceMs)],
    ["select_until", apiTime(untilMs)],
    ...(least === undefined ? [] : [["select_min", text(least)] as [string, string]]),
    ...(most === undefined ? [] : [["select_max", text(most)] as [string, string]]),
  ];
}

export function spanParameters(selection: Selection, value: string): [string, string][] {
  const { least, most } = selection;
  return [
    ...(least === undefined ? [] : [[`min_${value}`, text(least)] as [string, string]]),
    ...(most === undefined ? [] : [[`max_${value}`, text(most)] as [string, string]]),
  ];
}
