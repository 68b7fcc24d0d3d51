// Counts over time as small bars, the failed ones on top of the others.

import type { DisplayList, Shape, Size } from "./display.ts";

export function sparkline(counts: readonly number[], errors: readonly number[], size: Size): DisplayList {
  const most = counts.reduce((one, other) => Math.max(one, other), 1);
  const width = size.width / Math.max(1, counts.length);
  const shapes: Shape[] = [{ kind: "line", points: [[0, size.height - 0.5], [size.width, size.height - 0.5]], stroke: "grid" }];
  counts.forEach((spans, place) => {
    const height = (spans / most) * (size.height - 1);
    const failed = ((errors[place] ?? 0) / most) * (size.height - 1);
    const bar = { x: place * width, width: Math.max(1, width - 0.75) };
    if (height > 0) {
      shapes.push({ kind: "rect", ...bar, y: size.height - height, height, fill: "baseline" });
    }
    if (failed > 0) {
      shapes.push({ kind: "rect", ...bar, y: size.height - height, height: Math.max(1.5, failed), fill: "error" });
    }
  });
  return { ...size, shapes };
}
