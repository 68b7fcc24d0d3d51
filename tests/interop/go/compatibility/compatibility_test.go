// Package compatibility tests that old and new Go programs understand one another. The old side
// is tests/schema/span_v0.proto, loaded from its descriptor set.
package compatibility

import (
	"os"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	infertracev1 "infertrace.dev/proto"
)

const (
	schemaDirectory = "../../../schema/"
	oldBatch        = `{"spans": [{
		"traceId": "AQIDBAUGBwgJCgsMDQ4PEA==",
		"spanId": "ERITFBUWFxg=",
		"parentSpanId": "ISIjJCUmJyg=",
		"serviceName": "vision-api",
		"operationName": "inference",
		"startTimeUnixNano": "1767225600123456789",
		"durationNanos": "42500000",
		"status": "OK",
		"tags": {"region": "eu"},
		"inference": {"modelName": "resnet50", "modelVersion": "2.1", "batchSize": 8, "inputTokens": 24, "outputTokens": 0},
		"resources": {"gpuUtilizationPercent": 87.5, "gpuMemoryUsedBytes": "17179869184"}
	}]}`
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(schemaDirectory + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func newOldBatch(t *testing.T) *dynamicpb.Message {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(read(t, "span_v0.binpb"), set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	descriptor, err := files.FindDescriptorByName("infertrace.v1.SendSpanBatchRequest")
	if err != nil {
		t.Fatal(err)
	}
	return dynamicpb.NewMessage(descriptor.(protoreflect.MessageDescriptor))
}

func fullBatch(t *testing.T) *infertracev1.SendSpanBatchRequest {
	t.Helper()
	batch := &infertracev1.SendSpanBatchRequest{}
	if err := protojson.Unmarshal(read(t, "full_batch.json"), batch); err != nil {
		t.Fatal(err)
	}
	return batch
}

// transfer writes one message and reads its bytes as another type.
func transfer(t *testing.T, from, to proto.Message) {
	t.Helper()
	data, err := proto.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(data, to); err != nil {
		t.Fatal(err)
	}
}

func TestNewReadsWhatOldWrote(t *testing.T) {
	old := newOldBatch(t)
	if err := protojson.Unmarshal([]byte(oldBatch), old); err != nil {
		t.Fatal(err)
	}
	got := &infertracev1.SendSpanBatchRequest{}
	transfer(t, old, got)

	want := &infertracev1.SendSpanBatchRequest{}
	if err := protojson.Unmarshal([]byte(oldBatch), want); err != nil {
		t.Fatal(err)
	}
	// Implicit presence: to an old producer, 0 and "not measured" were the same.
	if want.Spans[0].Inference.OutputTokens == nil {
		t.Fatal("the test sends no zero")
	}
	want.Spans[0].Inference.OutputTokens = nil
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOldReadsWhatNewWrote(t *testing.T) {
	got := newOldBatch(t)
	transfer(t, fullBatch(t), got)

	want := newOldBatch(t)
	lenient := protojson.UnmarshalOptions{DiscardUnknown: true}
	if err := lenient.Unmarshal(read(t, "full_batch.json"), want); err != nil {
		t.Fatal(err)
	}
	if protojson.Format(got) != protojson.Format(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(got.GetUnknown()) == 0 {
		t.Error("the batch has no field that the old schema lacks")
	}
}

func TestOldReadsAMeasuredZeroAsZero(t *testing.T) {
	batch := &infertracev1.SendSpanBatchRequest{Spans: []*infertracev1.Span{{
		Inference: &infertracev1.InferenceContext{BatchSize: proto.Int32(0)},
	}}}
	got := newOldBatch(t)
	transfer(t, batch, got)

	span := got.Get(got.Descriptor().Fields().ByName("spans")).List().Get(0).Message()
	inference := span.Get(span.Descriptor().Fields().ByName("inference")).Message()
	batchSize := inference.Get(inference.Descriptor().Fields().ByName("batch_size")).Int()
	if !inference.IsValid() || batchSize != 0 || len(inference.GetUnknown()) != 0 {
		t.Errorf("got %v", inference)
	}
	again := &infertracev1.SendSpanBatchRequest{}
	transfer(t, batch, again)
	if size := again.Spans[0].Inference.BatchSize; size == nil || *size != 0 {
		t.Errorf("a measured zero came back as %v", size)
	}
}

func TestOldPassesUnknownFieldsOn(t *testing.T) {
	want := fullBatch(t)
	relay := newOldBatch(t)
	transfer(t, want, relay)
	got := &infertracev1.SendSpanBatchRequest{}
	transfer(t, relay, got)
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
