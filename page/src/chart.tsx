// A chart in the page: a display list on a canvas, its table, and what can be taken along.

import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { curlOf } from "./api.ts";
import { csv, type DisplayList, type Table } from "./display.ts";
import { plural } from "./format.ts";
import { paint } from "./paint.ts";
import { notice } from "./state.ts";
import { svg } from "./svg.ts";
import { DARK, LIGHT, type Theme } from "./theme.ts";

const MAX_TABLE_ROWS = 500;
const dark = matchMedia("(prefers-color-scheme: dark)");

export function useTheme(): Theme {
  const [isDark, setDark] = useState(dark.matches);
  useEffect(() => {
    const change = (): void => setDark(dark.matches);
    dark.addEventListener("change", change);
    return () => dark.removeEventListener("change", change);
  }, []);
  return isDark ? DARK : LIGHT;
}

/** The width that an element has, also after the window changed. */
export function useWidth(): { box: { current: HTMLDivElement | null }; width: number } {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) {
      return undefined;
    }
    const measure = (): void => setWidth(Math.floor(element.clientWidth));
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return { box, width };
}

export function Canvas({ list, label }: { list: DisplayList; label: string }): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = useTheme();
  useLayoutEffect(() => {
    if (canvas.current) {
      canvas.current.style.width = `${list.width}px`;
      canvas.current.style.height = `${list.height}px`;
      paint(canvas.current, list, theme);
    }
  });
  return <canvas ref={canvas} role="img" aria-label={label} />;
}

export type ChartProps = {
  readonly title: string;
  /** What the picture says to somebody who does not see it. */
  readonly label: string;
  readonly list: DisplayList;
  readonly notes: readonly string[];
  readonly path: string;
  readonly table: () => Table;
  readonly children?: ComponentChildren;
  /** What stands over the canvas and takes pointer and keys. */
  readonly over?: ComponentChildren;
};

export function Chart({ title, label, list, notes, path, table, over, children }: ChartProps): JSX.Element {
  const isTable = useSignal(false);
  return (
    <figure class="chart" aria-label={title}>
      <div class="plot">
        <Canvas list={list} label={label} />
        {over}
      </div>
      <figcaption>
        <span class="notes">{notes.join(" · ")}</span>
        <span class="take">
          <button type="button" onClick={() => { isTable.value = !isTable.value; }} aria-expanded={isTable.value}>
            Table
          </button>
          <button type="button" onClick={() => save(`${fileName(title)}.svg`, "image/svg+xml", svg(list, title, [...notes, path]))}>
            SVG
          </button>
          <button type="button" onClick={() => save(`${fileName(title)}.csv`, "text/csv", csv(table()))}>
            CSV
          </button>
          <button type="button" onClick={() => copy(location.href)}>Link</button>
          <button type="button" onClick={() => copy(curlOf(path))}>curl</button>
        </span>
      </figcaption>
      {children}
      {isTable.value && <DataTable table={table()} caption={title} />}
    </figure>
  );
}

export function DataTable({ table, caption }: { table: Table; caption: string }): JSX.Element {
  const left = table.rows.length - MAX_TABLE_ROWS;
  return (
    <div class="datatable" tabIndex={0} role="region" aria-label={`${caption}, as a table`}>
      <table>
        <caption>
          {caption}
          {left > 0 ? `: the first ${MAX_TABLE_ROWS} of ${plural(table.rows.length, "row")}; CSV has all` : ""}
        </caption>
        <thead>
          <tr>{table.head.map((name) => <th scope="col" key={name}>{name}</th>)}</tr>
        </thead>
        <tbody>
          {table.rows.slice(0, MAX_TABLE_ROWS).map((row, place) => (
            <tr key={place}>{row.map((cell, column) => <td key={column}>{cell}</td>)}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function fileName(title: string): string {
  return `infertrace-${title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "")}`;
}

function save(name: string, type: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Where the browser lets nobody write to the clipboard, the text is shown to be copied by hand. */
export function copy(text: string): void {
  const shown = (): void => { notice.value = text; };
  if (!navigator.clipboard) {
    shown();
    return;
  }
  navigator.clipboard.writeText(text).then(() => { notice.value = `Copied: ${text}`; }, shown);
}
