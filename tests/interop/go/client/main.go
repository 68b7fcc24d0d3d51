// Client is a producer for tests: it reads one request as JSON from standard input, sends it to
// a collector, and prints the response as JSON.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	infertracev1 "infertrace.dev/proto"
)

const callTimeout = 20 * time.Second

func main() {
	address := flag.String("address", "", "HOST:PORT of the collector")
	method := flag.String("method", "SendSpanBatch", "SendSpan or SendSpanBatch")
	flag.Parse()

	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	connection, err := grpc.NewClient(*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()

	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	response, err := send(ctx, infertracev1.NewCollectorServiceClient(connection), *method, text)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(protojson.Format(response))
}

func send(ctx context.Context, collector infertracev1.CollectorServiceClient, method string, text []byte) (proto.Message, error) {
	switch method {
	case "SendSpan":
		request := &infertracev1.SendSpanRequest{}
		if err := protojson.Unmarshal(text, request); err != nil {
			return nil, err
		}
		return collector.SendSpan(ctx, request)
	case "SendSpanBatch":
		request := &infertracev1.SendSpanBatchRequest{}
		if err := protojson.Unmarshal(text, request); err != nil {
			return nil, err
		}
		return collector.SendSpanBatch(ctx, request)
	}
	return nil, fmt.Errorf("-method: expected SendSpan or SendSpanBatch, got %q", method)
}
