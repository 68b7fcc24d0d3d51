// The exponential buckets of every distribution: the twin of
// src/infertrace/collector/store/exponential_buckets.py, held to it by tests/bucket_cases.json.

export const ZERO_BUCKET = -2;
const LOWEST_BUCKET = -1;
const HIGHEST_BUCKET = 511;
const ROUNDING = 4e-13;

export type Histogram = ReadonlyMap<number, number>;

export function bucketOf(value: number): number {
  if (value <= 0) {
    return ZERO_BUCKET;
  }
  const bucket = Math.ceil(Math.log2(value) * 8 - ROUNDING) - 1;
  return Math.max(LOWEST_BUCKET, Math.min(HIGHEST_BUCKET, bucket));
}

/** The largest value of a bucket. */
export function upperBound(bucket: number): number {
  return bucket <= ZERO_BUCKET ? 0 : 2 ** ((bucket + 1) / 8);
}

/** The value that a share, 0 to 1, is not larger than; undefined without any. */
export function quantile(counts: Histogram, fraction: number): number | undefined {
  let total = 0;
  for (const count of counts.values()) {
    total += count;
  }
  const wanted = fraction * total;
  let below = 0;
  let last: number | undefined;
  for (const bucket of [...counts.keys()].sort((one, other) => one - other)) {
    const count = counts.get(bucket) ?? 0;
    if (!count) {
      continue;
    }
    if (below + count >= wanted) {
      return inside(bucket, (wanted - below) / count);
    }
    below += count;
    last = bucket;
  }
  return last === undefined ? undefined : upperBound(last);
}

function inside(bucket: number, share: number): number {
  if (bucket <= ZERO_BUCKET) {
    return 0;
  }
  const low = upperBound(bucket - 1) || 2 ** (bucket / 8);
  return low * (upperBound(bucket) / low) ** share;
}

export function merged(histograms: Iterable<Iterable<readonly [number, number]>>): Map<number, number> {
  const sums = new Map<number, number>();
  for (const histogram of histograms) {
    for (const [bucket, count] of histogram) {
      sums.set(bucket, (sums.get(bucket) ?? 0) + count);
    }
  }
  return sums;
}
