// What the names of inks are, in light and dark. Heat is monotone in lightness, from the ground on.

import type { Ink } from "./display.ts";

type Name = Extract<Ink, string>;
export type Theme = { readonly inks: Record<Name, string>; readonly heat: readonly Rgb[]; readonly errors: readonly Rgb[] };
type Rgb = readonly [number, number, number];

export const LIGHT: Theme = {
  inks: {
    ink: "#1d2329", muted: "#59636e", faint: "#8b949e", grid: "#e6e8eb", ground: "#ffffff",
    accent: "#2f5d8a", selected: "#c2410c", baseline: "#4a7fb0", error: "#b42318", queue: "#b8a04a",
    prefill: "#7a5ba6", decode: "#3f8f86", step: "#8fa3b5", gpu: "#5c7a4a", good: "#2e7d4f",
    highlight: "#c2410c",
  },
  heat: [[232, 239, 246], [183, 208, 229], [116, 163, 203], [58, 112, 163], [27, 66, 112], [12, 32, 62]],
  errors: [[250, 232, 226], [243, 186, 166], [226, 121, 94], [186, 58, 44], [126, 22, 22]],
};

export const DARK: Theme = {
  inks: {
    ink: "#e6e9ec", muted: "#a3adb8", faint: "#78828d", grid: "#2a3037", ground: "#15191d",
    accent: "#7fb0dd", selected: "#fb923c", baseline: "#6ea3d4", error: "#f47067", queue: "#d3bc66",
    prefill: "#b398de", decode: "#63bdb3", step: "#64788a", gpu: "#93b878", good: "#5fbf86",
    highlight: "#fb923c",
  },
  heat: [[28, 41, 54], [33, 66, 98], [45, 101, 148], [84, 147, 192], [148, 196, 224], [228, 243, 252]],
  errors: [[58, 31, 29], [112, 39, 34], [176, 62, 50], [232, 115, 92], [255, 200, 180]],
};

export function colour(theme: Theme, ink: Ink): string {
  if (typeof ink === "string") {
    return theme.inks[ink];
  }
  const scale = ink.of === "count" ? theme.heat : theme.errors;
  const place = Math.max(0, Math.min(1, ink.heat)) * (scale.length - 1);
  const low = scale[Math.floor(place)] ?? [0, 0, 0];
  const high = scale[Math.ceil(place)] ?? low;
  const mix = place - Math.floor(place);
  const parts = [0, 1, 2].map((part) => Math.round((low[part] ?? 0) * (1 - mix) + (high[part] ?? 0) * mix));
  return `rgb(${parts.join(",")})`;
}
