// What a chart shows, as a list of shapes: made by pure functions, drawn by a thin painter, written as
// SVG by another, and tested without a browser. Colours are names; a theme says what they are.

export type Ink =
  | "ink" | "muted" | "faint" | "grid" | "ground" | "accent" | "selected" | "baseline" | "error"
  | "queue" | "prefill" | "decode" | "step" | "gpu" | "good" | "highlight"
  | { readonly heat: number; readonly of: "count" | "error" };

export type Shape =
  | {
      readonly kind: "rect"; readonly x: number; readonly y: number; readonly width: number;
      readonly height: number; readonly fill: Ink; readonly hatch?: boolean; readonly alpha?: number;
    }
  | {
      readonly kind: "frame"; readonly x: number; readonly y: number; readonly width: number;
      readonly height: number; readonly stroke: Ink; readonly dashed?: boolean;
    }
  | {
      readonly kind: "line"; readonly points: readonly (readonly [number, number])[];
      readonly stroke: Ink; readonly width?: number; readonly dashed?: boolean;
    }
  | {
      readonly kind: "text"; readonly x: number; readonly y: number; readonly text: string;
      readonly fill: Ink; readonly align?: "left" | "center" | "right"; readonly size?: number;
    };

export type Size = { readonly width: number; readonly height: number };

export type DisplayList = Size & { readonly shapes: readonly Shape[] };

/** A chart as a table: what is drawn, for those who do not see it, and as CSV. */
export type Table = { readonly head: readonly string[]; readonly rows: readonly (readonly (string | number)[])[] };

export function csv({ head, rows }: Table): string {
  const cell = (value: string | number): string => {
    const text = String(value);
    // A leading operator would be a formula in a spreadsheet.
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };
  return [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
}

/** Numbers for an axis: 1, 2 or 5 times a power of ten, no more than its limit. */
export function ticks(low: number, high: number, most: number): number[] {
  const wanted = (high - low) / Math.max(1, most);
  if (!(wanted > 0)) {
    return [low];
  }
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= wanted) ?? 10 * power;
  const found: number[] = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) {
    found.push(Number(tick.toPrecision(12)));
  }
  return found;
}

/** Powers of ten, and their halves and fifths where there is room, within a logarithmic range. */
export function logTicks(low: number, high: number, most: number): number[] {
  for (const factors of [[1, 2, 5], [1, 3], [1]]) {
    const found: number[] = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const factor of factors) {
        const tick = Number((factor * 10 ** power).toPrecision(12));
        if (tick >= low && tick <= high) {
          found.push(tick);
        }
      }
    }
    if (found.length <= most || factors.length === 1) {
      return found;
    }
  }
  return [];
}
