// Hands a trace to Perfetto: as a file, or to its page, which reads it in the browser and uploads nothing.
// Source: Perfetto, docs/visualization/deep-linking-to-perfetto-ui.md.

import { askFile } from "./api.ts";
import { notice } from "./state.ts";

const PERFETTO = "https://ui.perfetto.dev";
const PING_MS = 100;
const PATIENCE_MS = 30_000;

export async function download(path: string, name: string): Promise<void> {
  try {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await askFile(path)]));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (error) {
    notice.value = error instanceof Error ? error.message : "the collector does not answer";
  }
}

/** The window opens within the click, as browsers ask; what it shows comes after. */
export function openInPerfetto(path: string, title: string, origin: string = PERFETTO): void {
  const opened = window.open(origin);
  if (!opened) {
    notice.value = "The browser opened no window for Perfetto; download the file instead.";
    return;
  }
  let isReady = false;
  const ready = (event: MessageEvent): void => {
    isReady ||= event.source === opened && event.origin === origin && event.data === "PONG";
  };
  window.addEventListener("message", ready);
  askFile(path).then(
    (buffer) => {
      const startedMs = performance.now();
      const timer = setInterval(() => {
        if (isReady) {
          opened.postMessage({ perfetto: { buffer, title, fileName: `${title}.pftrace` } }, origin);
        } else if (performance.now() - startedMs < PATIENCE_MS && !opened.closed) {
          opened.postMessage("PING", origin);
          return;
        } else {
          notice.value = `${origin} does not answer; download the file instead.`;
        }
        clearInterval(timer);
        window.removeEventListener("message", ready);
      }, PING_MS);
    },
    (error: unknown) => { notice.value = error instanceof Error ? error.message : "the collector does not answer"; },
  );
}
