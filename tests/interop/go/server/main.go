// A ttrpc server on Debian's Go package, for the interop tests and the benchmark: `server SOCKET`
// prints a line once it accepts connections.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/gogo/protobuf/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type unmarshal = func(interface{}) error

func echo(_ context.Context, decode unmarshal) (interface{}, error) {
	var value types.StringValue
	if err := decode(&value); err != nil {
		return nil, err
	}
	return &value, nil
}

// describe tells what came along with the request: the hours left, and a key's metadata.
func describe(ctx context.Context, decode unmarshal) (interface{}, error) {
	var key types.StringValue
	if err := decode(&key); err != nil {
		return nil, err
	}
	deadline := "none"
	if at, ok := ctx.Deadline(); ok {
		deadline = fmt.Sprintf("%.0f", time.Until(at).Hours())
	}
	metadata, _ := ttrpc.GetMetadata(ctx)
	values, _ := metadata.Get(key.Value)
	text := fmt.Sprintf("deadline=%s values=%s", deadline, strings.Join(values, ","))
	return &types.StringValue{Value: text}, nil
}

func nothing(_ context.Context, decode unmarshal) (interface{}, error) {
	var empty types.Empty
	return &empty, decode(&empty)
}

// throw returns a status for "status" and an ordinary error for anything else.
func throw(_ context.Context, decode unmarshal) (interface{}, error) {
	var kind types.StringValue
	if err := decode(&kind); err != nil {
		return nil, err
	}
	if kind.Value == "status" {
		return nil, status.Error(codes.NotFound, "no such thing")
	}
	return nil, errors.New("plain words")
}

func wait(ctx context.Context, _ unmarshal) (interface{}, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// large replies with as many bytes as it is asked for.
func large(_ context.Context, decode unmarshal) (interface{}, error) {
	var size types.Int64Value
	if err := decode(&size); err != nil {
		return nil, err
	}
	return &types.BytesValue{Value: make([]byte, size.Value)}, nil
}

func main() {
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		log.Fatal(err)
	}
	server.Register("ttrpc.test.Echo", map[string]ttrpc.Method{
		"Echo":     echo,
		"Describe": describe,
		"Nothing":  nothing,
		"Throw":    throw,
		"Wait":     wait,
		"Large":    large,
	})
	fmt.Println("serving")
	log.Fatal(server.Serve(context.Background(), listener))
}
