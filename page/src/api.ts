// Asks the API: with the token, one request of a view at a time, and what it superseded is aborted.

import { useSignal, useSignalEffect } from "@preact/signals";
import { useRef } from "preact/hooks";
import { token } from "./state.ts";

export type Parameters = readonly (readonly [string, string])[];

export class ApiError extends Error {
  constructor(readonly status: number, text: string) {
    super(text);
  }
}

/** The path of a request, relative to the page. */
export function pathOf(path: string, parameters: Parameters): string {
  const query = new URLSearchParams(parameters.map(([name, text]): [string, string] => [name, text]));
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** The same as a line for a shell. */
export function curlOf(path: string): string {
  const header = token.value ? ' -H "Authorization: Bearer $TOKEN"' : "";
  return `curl${header} '${new URL(path, document.baseURI).href.replace(/'/g, "%27")}'`;
}

async function answerOf(path: string, signal?: AbortSignal): Promise<Response> {
  const headers: HeadersInit = token.value ? { Authorization: `Bearer ${token.value}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store", ...(signal ? { signal } : {}) });
  if (answer.ok) {
    return answer;
  }
  const body = await answer.text();
  let text = body.slice(0, 300);
  try {
    text = String((JSON.parse(body) as { error?: unknown }).error ?? text);
  } catch {
    // What is no JSON stands for itself.
  }
  throw new ApiError(answer.status, text);
}

export async function ask<T>(path: string, signal?: AbortSignal): Promise<{ data: T; headers: Headers }> {
  const answer = await answerOf(path, signal);
  return { data: (await answer.json()) as T, headers: answer.headers };
}

export async function askFile(path: string): Promise<ArrayBuffer> {
  return (await answerOf(path)).arrayBuffer();
}

export type Asked<T> = {
  readonly path: string;
  readonly data: T | undefined;
  readonly headers: Headers | undefined;
  readonly error: ApiError | undefined;
  readonly isLoading: boolean;
};

/** The answer to a path that depends on signals; the last one stays until there is the next. */
export function useAnswer<T>(path: () => string | undefined): Asked<T> {
  const asked = useSignal<Asked<T>>({ path: "", data: undefined, headers: undefined, error: undefined, isLoading: true });
  const running = useRef<AbortController>();
  useSignalEffect(() => {
    const wanted = path();
    void token.value;
    running.current?.abort();
    if (wanted === undefined) {
      asked.value = { path: "", data: undefined, headers: undefined, error: undefined, isLoading: false };
      return undefined;
    }
    const controller = new AbortController();
    running.current = controller;
    asked.value = { ...asked.peek(), isLoading: true };
    ask<T>(wanted, controller.signal).then(
      ({ data, headers }) => {
        if (!controller.signal.aborted) {
          asked.value = { path: wanted, data, headers, error: undefined, isLoading: false };
        }
      },
      (error: unknown) => {
        if (!controller.signal.aborted) {
          const told = error instanceof ApiError ? error : new ApiError(0, "the collector does not answer");
          asked.value = { ...asked.peek(), path: wanted, error: told, isLoading: false };
        }
      },
    );
    return () => controller.abort();
  });
  return asked.value;
}
