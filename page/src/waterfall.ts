// A trace as rows: depth, order, the critical path, what a fold or a search leaves, and where time is
// folded in which nothing happens.

import type { Span, Trace } from "./answers.ts";
import { parseTime } from "./time.ts";

export type Node = {
  readonly span: Span;
  readonly depth: number;
  readonly startMs: number; // after the trace's start
  readonly endMs: number;
  readonly parent: number | undefined; // the place of its row
  readonly childCount: number;
  readonly descendants: number;
  readonly isCritical: boolean;
};

export type Tree = {
  readonly nodes: readonly Node[];
  readonly startMs: number; // since 1970
  readonly lengthMs: number;
};

/** The rows in order: children after their parent, by their start. No chain of parents is a circle. */
export function treeOf(trace: Trace): Tree {
  const spans = trace.spans;
  const starts = spans.map((span) => parseTime(span.start_time));
  const startMs = starts.reduce((one, other) => Math.min(one, other), Number.POSITIVE_INFINITY);
  const places = new Map(spans.map((span, place) => [span.span_id, place]));
  const children = new Map<number, number[]>();
  const roots: number[] = [];
  spans.forEach((span, place) => {
    const parent = span.parent_span_id === undefined ? undefined : places.get(span.parent_span_id);
    if (parent === undefined || parent === place) {
      roots.push(place);
    } else {
      const siblings = children.get(parent);
      if (siblings) {
        siblings.push(place);
      } else {
        children.set(parent, [place]);
      }
    }
  });
  const byStart = (one: number, other: number): number =>
    (starts[one] ?? 0) - (starts[other] ?? 0) || one - other;
  roots.sort(byStart);
  for (const siblings of children.values()) {
    siblings.sort(byStart);
  }
  const seen = new Set<number>();
  const nodes: (Node & { descendants: number })[] = [];
  const visit = (root: number): void => {
    const open: [place: number, depth: number, parent: number | undefined][] = [[root, 0, undefined]];
    for (let next = open.pop(); next; next = open.pop()) {
      const [place, depth, parent] = next;
      const span = spans[place];
      if (!span || seen.has(place)) {
        continue;
      }
      seen.add(place);
      const from = (starts[place] ?? startMs) - startMs;
      const below = children.get(place) ?? [];
      nodes.push({
        span, depth, startMs: from, endMs: from + span.duration_ms, parent,
        childCount: below.length, descendants: 0, isCritical: false,
      });
      const row = nodes.length - 1;
      for (const child of [...below].reverse()) {
        open.push([child, depth + 1, row]);
      }
    }
  };
  roots.forEach(visit);
  // Ids may name one another in a circle: a span that no root leads to begins a row.
  spans.forEach((_, place) => {
    if (!seen.has(place)) {
      visit(place);
    }
  });
  for (let row = nodes.length - 1; row >= 0; row -= 1) {
    const node = nodes[row];
    const parent = node?.parent === undefined ? undefined : nodes[node.parent];
    if (node && parent) {
      parent.descendants += node.descendants + 1;
    }
  }
  const lengthMs = nodes.reduce((most, node) => Math.max(most, node.endMs), 0);
  const critical = criticalPath(nodes);
  return {
    nodes: nodes.map((node, row) => (critical.has(row) ? { ...node, isCritical: true } : node)),
    startMs,
    lengthMs,
  };
}

/** Rows that the end of the longest root waited for: from its end back, always the last to end. */
export function criticalPath(nodes: readonly Node[]): Set<number> {
  const children = new Map<number, number[]>();
  let root: number | undefined;
  nodes.forEach((node, row) => {
    if (node.parent === undefined) {
      const best = root === undefined ? undefined : nodes[root];
      if (!best || node.endMs - node.startMs > best.endMs - best.startMs) {
        root = row;
      }
    } else {
      children.set(node.parent, [...(children.get(node.parent) ?? []), row]);
    }
  });
  const found = new Set<number>();
  const open = root === undefined ? [] : [root];
  for (let row = open.pop(); row !== undefined; row = open.pop()) {
    found.add(row);
    const node = nodes[row];
    let until = node?.endMs ?? 0;
    const below = [...(children.get(row) ?? [])].sort((one, other) => (nodes[other]?.endMs ?? 0) - (nodes[one]?.endMs ?? 0));
    for (const child of below) {
      const inner = nodes[child];
      // What ended after the wait had begun did not hold it up.
      if (inner && inner.endMs <= until + 1e-6) {
        open.push(child);
        until = inner.startMs;
      }
    }
  }
  return found;
}

/** The rows that are shown: none below a folded one, and of a search those that match, with what is above them. */
export function shownRows(tree: Tree, folded: ReadonlySet<string>, search: string, leastMs: number): number[] {
  const wanted = search.trim().toLowerCase();
  const matching = new Set<number>();
  if (wanted || leastMs > 0) {
    tree.nodes.forEach((node, row) => {
      if (node.span.duration_ms >= leastMs && (!wanted || textOf(node.span).includes(wanted))) {
        for (let at: number | undefined = row; at !== undefined && !matching.has(at); at = tree.nodes[at]?.parent) {
          matching.add(at);
        }
      }
    });
  }
  const rows: number[] = [];
  for (let row = 0; row < tree.nodes.length; row += 1) {
    const node = tree.nodes[row];
    if (!node) {
      continue;
    }
    if ((wanted || leastMs > 0) && !matching.has(row)) {
      continue;
    }
    rows.push(row);
    if (folded.has(node.span.span_id)) {
      row += node.descendants;
    }
  }
  return rows;
}

function textOf(span: Span): string {
  return [span.operation_name, span.service_name, span.model_name, span.status, span.status_message, span.span_id, span.request_id]
    .filter((text) => text !== undefined)
    .join("\n")
    .toLowerCase();
}

/** Times in which nothing is known to work, longer than a share of the whole: [from, to].
 *
 * What works is a span without children, and a request that says when it was decoding, whatever is below it. */
export function gapsOf(tree: Tree, leastShare: number): [number, number][] {
  const busy = tree.nodes
    .filter((node) => node.childCount === 0 || node.span.time_to_first_token_ms !== undefined)
    .map((node): [number, number] => [node.startMs, node.endMs])
    .sort((one, other) => one[0] - other[0]);
  const gaps: [number, number][] = [];
  let until = 0;
  for (const [from, to] of busy) {
    if (from - until > leastShare * tree.lengthMs) {
      gaps.push([until, from]);
    }
    until = Math.max(until, to);
  }
  return gaps;
}

/** Moments for the axis, in equal parts, but for those that a folded gap leaves no room between. */
export function axisTicks(lengthMs: number, axis: (ms: number) => number): number[] {
  const found = [0];
  for (const part of [0.25, 0.5, 0.75, 1]) {
    const room = axis(part * lengthMs) - axis((found.at(-1) ?? 0) * lengthMs);
    if (part === 1 && room < TICK_ROOM && found.length > 1) {
      found.pop();
    }
    if (room >= TICK_ROOM || part === 1) {
      found.push(part);
    }
  }
  return found.map((part) => part * lengthMs);
}

const TICK_ROOM = 0.12; // of the width

/** Time to a share of the width, 0 to 1, with gaps drawn as narrow as `gapShare` each. */
export function axisOf(lengthMs: number, gaps: readonly (readonly [number, number])[], gapShare: number): (ms: number) => number {
  const folded = gaps.reduce((sum, [from, to]) => sum + to - from, 0);
  const busy = Math.max(1e-9, lengthMs - folded);
  const room = 1 - gapShare * gaps.length;
  return (ms) => {
    let share = 0;
    let at = 0;
    for (const [from, to] of gaps) {
      if (ms <= from) {
        break;
      }
      share += ((from - at) / busy) * room;
      share += ms >= to ? gapShare : ((ms - from) / (to - from)) * gapShare;
      at = Math.min(ms, to);
      if (ms <= to) {
        return share;
      }
    }
    return Math.max(0, Math.min(1, share + ((ms - at) / busy) * room));
  };
}
