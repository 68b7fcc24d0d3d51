// The targets of good requests, as the address has them: `duration_ms:2000,time_to_first_token_ms:500`.

export const TARGETS = [
  "duration_ms", "time_to_first_token_ms", "inter_token_latency_ms", "max_inter_token_latency_ms", "queue_wait_time_ms",
];

export function parseTargets(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [name, value] of text.split(",").map((each) => each.split(":"))) {
    if (name !== undefined && TARGETS.includes(name) && Number(value) > 0) {
      found.set(name, value ?? "");
    }
  }
  return found;
}

/** What stands for no targets at all differs from what stands for the usual ones. */
export function formatTargets(targets: ReadonlyMap<string, string>): string {
  return [...targets].map((each) => each.join(":")).join(",") || "none";
}
