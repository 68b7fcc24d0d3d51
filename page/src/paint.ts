// The painter: a display list on a canvas.

import type { DisplayList, Shape } from "./display.ts";
import { colour, type Theme } from "./theme.ts";

export const FONT = 'ui-sans-serif, system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif';
export const TEXT_SIZE = 11;

export function paint(canvas: HTMLCanvasElement, list: DisplayList, theme: Theme): void {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(list.width * ratio), Math.round(list.height * ratio)];
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d");
  if (!context) {
    return;
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, list.width, list.height);
  for (const shape of list.shapes) {
    draw(context, shape, theme);
  }
}

function draw(context: CanvasRenderingContext2D, shape: Shape, theme: Theme): void {
  if (shape.kind === "rect") {
    context.globalAlpha = shape.alpha ?? 1;
    context.fillStyle = colour(theme, shape.fill);
    context.fillRect(shape.x, shape.y, shape.width, shape.height);
    context.globalAlpha = 1;
    if (shape.hatch) {
      hatch(context, shape, theme);
    }
  } else if (shape.kind === "frame") {
    context.strokeStyle = colour(theme, shape.stroke);
    context.setLineDash(shape.dashed ? [4, 3] : []);
    context.strokeRect(shape.x + 0.5, shape.y + 0.5, shape.width, shape.height);
    context.setLineDash([]);
  } else if (shape.kind === "line") {
    context.strokeStyle = colour(theme, shape.stroke);
    context.lineWidth = shape.width ?? 1;
    context.setLineDash(shape.dashed ? [4, 3] : []);
    context.beginPath();
    shape.points.forEach(([x, y], place) => (place ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
    context.setLineDash([]);
    context.lineWidth = 1;
  } else {
    context.fillStyle = colour(theme, shape.fill);
    context.font = `${shape.size ?? TEXT_SIZE}px ${FONT}`;
    context.textAlign = shape.align ?? "left";
    context.textBaseline = "middle";
    context.fillText(shape.text, shape.x, shape.y);
  }
}

function hatch(
  context: CanvasRenderingContext2D,
  { x, y, width, height }: { x: number; y: number; width: number; height: number },
  theme: Theme,
): void {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = colour(theme, "ground");
  context.beginPath();
  for (let at = x - height; at < x + width; at += 5) {
    context.moveTo(at, y + height);
    context.lineTo(at + height, y);
  }
  context.stroke();
  context.restore();
}
