// Which rows of a long list are in the DOM: those in view, and some around them.

export type Window = { readonly first: number; readonly end: number };

export function windowOf(total: number, rowHeight: number, scrollTop: number, height: number, around: number): Window {
  const first = Math.max(0, Math.floor(scrollTop / rowHeight) - around);
  const end = Math.min(total, Math.ceil((scrollTop + height) / rowHeight) + around);
  return { first: Math.min(first, Math.max(0, total - 1)), end };
}
