// What the API answers, as far as the page reads it.

export type Counted = { readonly spans: string; readonly operation: string | null; readonly since: string; readonly until: string };

export type ModelRow = {
  readonly model_name: string;
  readonly sample_count: number;
  readonly requests_per_second: number;
  readonly error_count: number;
  readonly error_rate: number;
  readonly tokens_per_second?: number;
  readonly last_seen: string;
  readonly columns: { readonly counts: readonly number[]; readonly errors: readonly number[] };
  readonly change?: Readonly<Record<string, number | null>>;
} & Readonly<Record<string, unknown>>;

export type Overview = {
  readonly counted: Counted;
  readonly column_seconds: number;
  readonly total: number;
  readonly model_count: number;
  readonly truncated: boolean;
  readonly models: readonly ModelRow[];
};

export type Cell = readonly [bucket: number, count: number, errors: number];

export type HeatmapColumn = {
  readonly index: number;
  readonly time: string;
  readonly cells: readonly Cell[];
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
};

export type Heatmap = {
  readonly value: string;
  readonly unit: string;
  readonly per_unit: number;
  readonly counted: Counted;
  readonly column_seconds: number;
  readonly column_count: number;
  readonly total: number;
  readonly error_count: number;
  readonly without_value: number;
  readonly p50?: number;
  readonly p95?: number;
  readonly p99?: number;
  readonly columns: readonly HeatmapColumn[];
};

/** A heatmap of two numbers: its columns are buckets of the second one. */
export type Plane = Pick<Heatmap, "value" | "unit" | "per_unit" | "counted" | "total" | "error_count" | "without_value"> & {
  readonly by: string;
  readonly by_unit: string;
  readonly by_per_unit: number;
  readonly columns: readonly { readonly bucket: number; readonly cells: readonly Cell[]; readonly p50: number; readonly p95: number }[];
};

export type ComparedValue = {
  readonly value: string;
  readonly selected: number;
  readonly baseline: number;
  readonly selected_share: number;
  readonly baseline_share: number;
  readonly difference: number;
};

export type Side = { readonly total: number; readonly p50: number | null; readonly cells: readonly (readonly [number, number])[] };

export type Comparison = {
  readonly selected_total: number;
  readonly baseline_total: number;
  readonly selected_errors: number;
  readonly baseline_errors: number;
  readonly sampled: boolean;
  readonly sampled_share: number;
  readonly keyed_sampled_share: number;
  readonly dimensions: readonly {
    readonly dimension: string;
    readonly difference: number;
    readonly value_count: number;
    readonly truncated: boolean;
    readonly values: readonly ComparedValue[];
  }[];
  readonly measures: readonly {
    readonly measure: string;
    readonly unit: string;
    readonly per_unit: number;
    readonly difference: number;
    readonly selected: Side;
    readonly baseline: Side;
  }[];
};

export type Span = {
  readonly trace_id: string;
  readonly span_id: string;
  readonly parent_span_id?: string;
  readonly service_name?: string;
  readonly operation_name?: string;
  readonly start_time: string;
  readonly duration_ms: number;
  readonly status: string;
  readonly status_message?: string;
  readonly model_name?: string;
  readonly engine?: string;
  readonly input_tokens?: number;
  readonly output_tokens?: number;
  readonly queue_wait_time_ms?: number;
  readonly scheduled_after_ms?: number;
  readonly time_to_first_token_ms?: number;
  readonly inter_token_latency_ms?: number;
  readonly max_inter_token_latency_ms?: number;
  readonly first_step?: number;
  readonly last_step?: number;
  readonly step_index?: number;
  readonly request_id?: string;
  readonly producer_id?: string;
  readonly events?: readonly { readonly time: string; readonly name: string; readonly attributes?: object }[];
  readonly links?: readonly { readonly trace_id: string; readonly span_id: string; readonly attributes?: object }[];
};

export type Trace = { readonly trace_id: string; readonly spans: readonly Span[]; readonly truncated?: boolean };

export type Finding = {
  readonly cause: string;
  readonly explained_ms: number;
  readonly share: number;
  readonly sentence: string;
  readonly culprit: { readonly trace_id: string; readonly span_id: string; readonly request_id?: string } | null;
  readonly steps: readonly { readonly engine: string; readonly index: number; readonly trace_id: string; readonly span_id: string; readonly duration_ms: number }[];
};

export type Why = {
  readonly trace_id: string;
  readonly span_id: string;
  readonly request_id?: string;
  readonly duration_ms: number;
  readonly summary: string;
  readonly findings: readonly Finding[];
  readonly excess_ms: number | null;
  readonly unexplained_ms: number | null;
  readonly unexplained: string | null;
  readonly unknown: readonly string[];
  readonly baseline: { readonly request_count: number };
};

export type Step = {
  readonly trace_id: string;
  readonly span_id: string;
  readonly step_index: number;
  readonly engine: string;
  readonly producer_id?: string;
  readonly start_time: string;
  readonly duration_ms: number;
  readonly model_name?: string;
  readonly batch_size?: number;
  readonly batch_fill_ratio?: number;
  readonly prefill_tokens?: number;
  readonly decode_tokens?: number;
  readonly queue_depth?: number;
  readonly kv_cache_usage?: number;
};

export type StepColumn = {
  readonly time: string;
  readonly step_count: number;
  readonly mean_ms: number;
  readonly longest_ms: number;
  readonly batch_fill_ratio?: number;
  readonly prefill_share?: number;
  readonly queue_depth?: number;
  readonly kv_cache_usage?: number;
};

export type Steps = {
  readonly since: string;
  readonly until: string;
  readonly step_count: number;
  readonly steps?: readonly Step[];
  readonly column_seconds?: number;
  readonly columns?: readonly StepColumn[];
};

export type Member = {
  readonly trace_id: string;
  readonly span_id: string;
  readonly request_id?: string;
  readonly start_time: string;
  readonly duration_ms: number;
  readonly phase: string;
  readonly prefill_tokens: number;
  readonly first_step?: number;
  readonly last_step?: number;
};

export type Reading = { readonly count: number; readonly mean: number; readonly max: number };
export type GpuColumn = { readonly time: string; readonly count: number } & Readonly<Record<string, unknown>>;
export type Gpus = {
  readonly column_seconds: number;
  readonly total: number;
  readonly device_count: number;
  readonly devices: readonly { readonly gpu_device_id: string; readonly columns: readonly GpuColumn[] }[];
};

export type Tail = {
  readonly spans: readonly Span[];
  readonly next: number;
  readonly total: number;
  readonly skipped: number;
  readonly forgotten: number;
};

export type Attained = {
  readonly total: number;
  readonly good: number;
  readonly errors: number;
  readonly attained: number | null;
  readonly burn_rate: number | null;
};
export type Slo = {
  readonly counted: Counted;
  readonly objective: number;
  readonly range: Attained & { readonly seconds: number; readonly goodput: number };
  readonly windows: readonly (Attained & { readonly window: string })[];
  readonly alerts: readonly { readonly burn_rate: number; readonly long: string; readonly short: string; readonly firing: boolean }[];
};

export type Producer = {
  readonly producer_id: string;
  readonly service_name: string;
  readonly numbered: boolean;
  readonly state: string;
  readonly produced: number | null;
  readonly stored: number;
  readonly pending: number | null;
  readonly dropped: Readonly<Record<string, number>> | null;
  readonly rejected: number;
  readonly duplicates: number;
  readonly gaps: readonly (readonly [number, number])[] | null;
  readonly completeness: number | null;
  readonly complete: boolean | null;
  readonly first_seen: string;
  readonly last_seen: string;
};
export type Ledger = { readonly producers: readonly Producer[] };

export type Facets = {
  readonly field: string;
  readonly total: number;
  readonly truncated: boolean;
  readonly values: readonly { readonly value: string; readonly count: number }[];
};
