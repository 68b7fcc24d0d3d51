import assert from "node:assert/strict";
import { test } from "node:test";
import { bucketOf, merged, quantile, upperBound, ZERO_BUCKET } from "../src/buckets.ts";
import cases from "./bucket_cases.json";

test("the buckets are those of the collector", () => {
  for (const [value, bucket] of cases.buckets as [number, number][]) {
    assert.equal(bucketOf(value), bucket, `of ${value}`);
    assert.ok(value <= upperBound(bucket) * (1 + 1e-12));
  }
});

test("the quantiles are those of the collector", () => {
  for (const { counts, fraction, quantile: expected } of cases.quantiles as { counts: [number, number][]; fraction: number; quantile: number | null }[]) {
    const found = quantile(new Map(counts), fraction);
    if (expected === null) {
      assert.equal(found, undefined);
    } else {
      assert.ok(found !== undefined && Math.abs(found - expected) <= 1e-9 * Math.abs(expected), `${found}, not ${expected}`);
    }
  }
});

test("histograms are merged by adding", () => {
  assert.deepEqual([...merged([[[1, 2], [ZERO_BUCKET, 1]], [[1, 3]]])].sort(), [[ZERO_BUCKET, 1], [1, 5]].sort());
});
