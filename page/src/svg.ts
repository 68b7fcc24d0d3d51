// A display list as SVG, in the light theme, for a paper or a postmortem.

import type { DisplayList, Shape } from "./display.ts";
import { FONT, TEXT_SIZE } from "./paint.ts";
import { colour, LIGHT } from "./theme.ts";

const ANCHORS = { left: "start", center: "middle", right: "end" };

/** `title` and `notes` stand in the picture: what it shows, of how many, and how complete. */
export function svg(list: DisplayList, title: string, notes: readonly string[]): string {
  const top = 26;
  const height = list.height + top + 8 + 14 * notes.length;
  const shown = list.shapes.map(element).join("\n");
  const lines = notes.map((note, place) =>
    text({ x: 4, y: list.height + top + 10 + 14 * place, text: note, fill: "muted" }),
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${list.width}" height="${height}" viewBox="0 0 ${list.width} ${height}" font-family="${escape(FONT)}">`,
    `<title>${escape(title)}</title>`,
    `<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M0 0V5" stroke="#fff"/></pattern></defs>`,
    `<rect width="100%" height="100%" fill="${LIGHT.inks.ground}"/>`,
    text({ x: 4, y: 12, text: title, fill: "ink", size: 13 }),
    `<g transform="translate(0 ${top})">`,
    shown,
    "</g>",
    ...lines,
    "</svg>",
  ].join("\n");
}

function element(shape: Shape): string {
  if (shape.kind === "rect") {
    const place = `x="${n(shape.x)}" y="${n(shape.y)}" width="${n(shape.width)}" height="${n(shape.height)}"`;
    const alpha = shape.alpha === undefined ? "" : ` fill-opacity="${n(shape.alpha)}"`;
    const filled = `<rect ${place} fill="${colour(LIGHT, shape.fill)}"${alpha}/>`;
    return shape.hatch ? `${filled}<rect ${place} fill="url(#hatch)"/>` : filled;
  }
  if (shape.kind === "frame") {
    const dashes = shape.dashed ? ' stroke-dasharray="4 3"' : "";
    return `<rect x="${n(shape.x)}" y="${n(shape.y)}" width="${n(shape.width)}" height="${n(shape.height)}" fill="none" stroke="${colour(LIGHT, shape.stroke)}"${dashes}/>`;
  }
  if (shape.kind === "line") {
    const points = shape.points.map(([x, y]) => `${n(x)},${n(y)}`).join(" ");
    const dashes = shape.dashed ? ' stroke-dasharray="4 3"' : "";
    return `<polyline points="${points}" fill="none" stroke="${colour(LIGHT, shape.stroke)}" stroke-width="${shape.width ?? 1}"${dashes}/>`;
  }
  return text(shape);
}

function text(shape: Omit<Extract<Shape, { kind: "text" }>, "kind">): string {
  const anchor = ANCHORS[shape.align ?? "left"];
  return `<text x="${n(shape.x)}" y="${n(shape.y)}" font-size="${shape.size ?? TEXT_SIZE}" fill="${colour(LIGHT, shape.fill)}" text-anchor="${anchor}" dominant-baseline="middle">${escape(shape.text)}</text>`;
}

function n(value: number): string {
  return String(Number(value.toFixed(2)));
}

export function escape(given: string): string {
  return given
    .replace(/&/g, "&amp;")
    .replace(/</g, "&lt;")
    .replace(/>/g, "&gt;")
    .replace(/"/g, "&quot;")
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, "");
}
