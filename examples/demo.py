"""The ten-line start: a traced loop, read at http://127.0.0.1:8080/spans?model=gpt-4.

Start `infertrace collector` first; INFERTRACE_ENDPOINT names one on another address.
"""

from infertrace import Tracer

tracer = Tracer().configure(service_name="demo-model-server")


def run_batch(inputs: list[str]) -> list[str]:
    with tracer.start_span("gpt-4") as span:
        outputs = [text.upper() for text in inputs]  # your model
        span.set_batch_size(len(inputs))
        span.set_tokens(input=len(" ".join(inputs).split()), output=len(" ".join(outputs).split()))
        return outputs


for step in range(100):
    run_batch(["tell me a story"] * (step % 8 + 1))

tracer.shutdown()
print(tracer.stats())
