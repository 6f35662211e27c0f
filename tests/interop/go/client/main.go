// A ttrpc client on Debian's Go package: `client probe SOCKET` makes one call of every sort and
// prints what came of each; `client bench SOCKET SECONDS CALLS...` measures echo calls with so many
// in flight. Both print JSON lines.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/gogo/protobuf/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const service = "ttrpc.test.Echo"

// outcome is a call's reply (only its size when it is long), or its error.
type outcome struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Size  int    `json:"size"`
	Code  int    `json:"code"`
	Error string `json:"error"`
}

// measure has calls per second and microseconds a call.
type measure struct {
	InFlight int     `json:"in_flight"`
	Rate     float64 `json:"rate"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
}

func emit(line interface{}) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		log.Fatal(err)
	}
}

func dial(path string) *ttrpc.Client {
	conn, err := net.Dial("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	return ttrpc.NewClient(conn)
}

func probe(client *ttrpc.Client) {
	background := context.Background()
	call := func(name, service, method string, ctx context.Context, value string) {
		var reply types.StringValue
		err := client.Call(ctx, service, method, &types.StringValue{Value: value}, &reply)
		line := outcome{Name: name, Size: len(reply.Value)}
		if line.Size < 256 {
			line.Value = reply.Value
		}
		if err != nil {
			line.Error = status.Convert(err).Message()
			line.Code = int(status.Code(err))
			if errors.Is(err, context.DeadlineExceeded) {
				// Its own clock; the server's answer may come first.
				line.Code = int(codes.DeadlineExceeded)
			}
		}
		emit(line)
	}
	call("echo", service, "Echo", background, "hi")
	call("empty", service, "Echo", background, "")
	call("empty message", service, "Nothing", background, "")
	call("status", service, "Throw", background, "status")
	call("plain", service, "Throw", background, "plain")
	call("unknown service", "ttrpc.test.Nope", "Echo", background, "")
	call("unknown method", service, "Nope", background, "")
	call("no handler", service, "Missing", background, "")
	metadata := ttrpc.WithMetadata(background, ttrpc.MD{"key": []string{"one", "two"}})
	call("metadata", service, "Describe", metadata, "KEY")
	timed, cancel := context.WithTimeout(background, 1000*time.Hour)
	call("deadline", service, "Describe", timed, "key")
	cancel()
	short, cancel := context.WithTimeout(background, 100*time.Millisecond)
	call("overrun", service, "Wait", short, "")
	cancel()
	call("after the overrun", service, "Echo", background, "still here")
	call("large", service, "Echo", background, strings.Repeat("x", 4<<20-64))
	call("oversize", service, "Echo", background, strings.Repeat("x", 5<<20))
	call("oversize reply", service, "Large", background, "")
	call("after the oversize", service, "Echo", background, "still here")
}

func bench(client *ttrpc.Client, duration time.Duration, inFlight int) {
	var group sync.WaitGroup
	times := make([][]float64, inFlight)
	started := time.Now()
	end := started.Add(duration)
	for slot := 0; slot < inFlight; slot++ {
		group.Add(1)
		go func(slot int) {
			defer group.Done()
			request := &types.StringValue{Value: "sixteen bytes of"}
			for before := time.Now(); before.Before(end); {
				var reply types.StringValue
				if err := client.Call(context.Background(), service, "Echo", request, &reply); err != nil {
					log.Fatal(err)
				}
				after := time.Now()
				times[slot] = append(times[slot], float64(after.Sub(before).Nanoseconds())/1e3)
				before = after
			}
		}(slot)
	}
	group.Wait()
	elapsed := time.Since(started).Seconds()
	var all []float64
	for _, each := range times {
		all = append(all, each...)
	}
	sort.Float64s(all)
	emit(measure{inFlight, float64(len(all)) / elapsed, all[len(all)/2], all[len(all)*99/100]})
}

func main() {
	client := dial(os.Args[2])
	if os.Args[1] == "probe" {
		probe(client)
		return
	}
	seconds, err := strconv.ParseFloat(os.Args[3], 64)
	if err != nil {
		log.Fatal(err)
	}
	for _, each := range os.Args[4:] {
		inFlight, err := strconv.Atoi(each)
		if err != nil {
			log.Fatal(err)
		}
		bench(client, time.Duration(seconds*float64(time.Second)), inFlight)
	}
}
