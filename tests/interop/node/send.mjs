// Sends spans by OTLP's JSON over HTTP. Arguments: the URL, the number of spans. Prints the ids.
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BasicTracerProvider, BatchSpanProcessor } from "@opentelemetry/sdk-trace-base";

const [url, count] = process.argv.slice(2);
const provider = new BasicTracerProvider({
  resource: resourceFromAttributes({ "service.name": "node-app", "service.instance.id": "one" }),
  spanProcessors: [
    new BatchSpanProcessor(new OTLPTraceExporter({ url }), { maxQueueSize: 100_000 }),
  ],
});
const tracer = provider.getTracer("node");
const ids = [];
for (let number = 0; number < Number(count); number++) {
  const attributes = {
    "gen_ai.request.model": "gpt-4",
    "gen_ai.usage.input_tokens": number,
    "gen_ai.usage.output_tokens": 100,
    "whole.double": 3.0,
  };
  const span = tracer.startSpan("chat gpt-4", { attributes });
  ids.push(span.spanContext().spanId);
  span.end();
}
await provider.forceFlush();
await provider.shutdown();
console.log(JSON.stringify(ids));
