// Receiver is a collector for tests: it accepts every span and prints what it got.
//
// The first line on standard output is the address it listens on. Each call is one more line:
// the method, a blank, the request as JSON. It exits when its standard input is closed.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	infertracev1 "infertrace.dev/proto"
)

const maxRequestBytes = 64 << 20

type collector struct {
	infertracev1.UnimplementedCollectorServiceServer
	printing sync.Mutex
}

func (c *collector) SendSpan(_ context.Context, request *infertracev1.SendSpanRequest) (*infertracev1.SendSpanResponse, error) {
	if err := c.print("SendSpan", request); err != nil {
		return nil, err
	}
	return &infertracev1.SendSpanResponse{Accepted: true}, nil
}

func (c *collector) SendSpanBatch(_ context.Context, request *infertracev1.SendSpanBatchRequest) (*infertracev1.SendSpanBatchResponse, error) {
	if err := c.print("SendSpanBatch", request); err != nil {
		return nil, err
	}
	return &infertracev1.SendSpanBatchResponse{AcceptedCount: int32(len(request.GetSpans()))}, nil
}

func (c *collector) print(method string, request proto.Message) error {
	text, err := protojson.Marshal(request)
	if err != nil {
		return err
	}
	c.printing.Lock()
	defer c.printing.Unlock()
	_, err = fmt.Printf("%s %s\n", method, text)
	return err
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxRequestBytes))
	infertracev1.RegisterCollectorServiceServer(server, &collector{})

	go func() {
		io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	fmt.Println(listener.Addr())
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
