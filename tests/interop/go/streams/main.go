// The host's side of standard streams, with containerd's own code.
//
// Orders come as lines of JSON on stdin, are carried out concurrently, and are answered with a line
// of JSON each on stdout. containerd's log goes to stderr.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/v2/core/streaming"
	"github.com/containerd/containerd/v2/core/streaming/proxy"
	transfer "github.com/containerd/containerd/v2/core/transfer/streaming"
	"github.com/containerd/ttrpc"
)

// An Order is one stream to read or to write, or one task to run as the CRI does.
type Order struct {
	Name string `json:"name"`
	// The output: the id of a stream, the path of a port's socket, or of a FIFO.
	Stream string `json:"stream"`
	Socket string `json:"socket"`
	Fifo   string `json:"fifo"`
	// ReceiveStream in place of ReadByteStream.
	Receive bool `json:"receive"`
	// Stop for so many seconds once so many bytes have come, and after each read.
	PauseAt int64   `json:"pause_at"`
	Pause   float64 `json:"pause"`
	Every   float64 `json:"every"`
	// Go away once so many bytes have come; with KeepConnection only the stream is closed.
	CancelAt       int64 `json:"cancel_at"`
	KeepConnection bool  `json:"keep_connection"`
	// The task to wait for, start, and delete; its reader is cancelled as soon as Wait returns.
	Task string `json:"task"`
	Exec string `json:"exec"`
	// The input: bytes to write to a stream, of a pattern.
	Input  string `json:"input"`
	Length int64  `json:"length"`
}

// An Answer says what became of an order.
type Answer struct {
	Name   string  `json:"name"`
	Size   int64   `json:"size"`
	Sha256 string  `json:"sha256"`
	Error  string  `json:"error"`
	Exit   uint32  `json:"exit"`
	Waited float64 `json:"waited"` // seconds from Start's answer to Wait's
	Ended  float64 `json:"ended"`  // seconds from Wait's answer to Delete's
}

var address string

func main() {
	address = os.Args[1]
	out := json.NewEncoder(os.Stdout)
	var lock sync.Mutex
	var all sync.WaitGroup
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		order := Order{CancelAt: -1, PauseAt: -1}
		if err := json.Unmarshal(lines.Bytes(), &order); err != nil {
			panic(err)
		}
		all.Add(1)
		go func() {
			defer all.Done()
			answer := carryOut(order)
			lock.Lock()
			defer lock.Unlock()
			if err := out.Encode(answer); err != nil {
				panic(err)
			}
		}()
	}
	all.Wait()
}

func carryOut(order Order) Answer {
	answer := Answer{Name: order.Name}
	var err error
	switch {
	case order.Input != "":
		err = write(order, &answer)
	case order.Task != "":
		err = run(order, &answer)
	default:
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		err = read(ctx, order, &answer)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	return answer
}

// dial returns a client on a connection of its own, as containerd's CRI has for each stream.
func dial() (*ttrpc.Client, error) {
	conn, err := net.Dial("unix", address)
	if err != nil {
		return nil, err
	}
	return ttrpc.NewClient(conn), nil
}

// A connected stream is closed with its connection.
type connected struct {
	streaming.Stream
	client *ttrpc.Client
	keep   bool
}

func (c *connected) Close() error {
	err := c.Stream.Close()
	if !c.keep {
		err = errors.Join(err, c.client.Close())
	}
	return err
}

func open(ctx context.Context, id string, keep bool) (streaming.Stream, error) {
	client, err := dial()
	if err != nil {
		return nil, err
	}
	stream, err := proxy.NewStreamCreator(client).Create(ctx, id)
	if err != nil {
		return nil, err
	}
	return &connected{stream, client, keep}, nil
}

func openOutput(ctx context.Context, order Order) (io.Reader, io.Closer, error) {
	switch {
	case order.Socket != "":
		port := &port{path: order.Socket}
		return port, port, nil
	case order.Fifo != "":
		// Without O_NONBLOCK it would wait for the agent, which waits for the start.
		file, err := os.OpenFile(order.Fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		return &patient{file}, file, err
	}
	stream, err := open(ctx, order.Stream, order.KeepConnection)
	if err != nil {
		return nil, nil, err
	}
	if order.Receive {
		return transfer.ReceiveStream(ctx, stream), stream, nil
	}
	reader := transfer.ReadByteStream(ctx, stream)
	return reader, reader, nil
}

// A port is dialled by the first read, as often as Kuasar's containerd tries: it may open late.
type port struct {
	path   string
	lock   sync.Mutex
	conn   net.Conn
	closed bool
}

func (p *port) Read(b []byte) (int, error) {
	var err error
	for try := 0; try < 100 && p.conn == nil; try++ {
		if err = p.dial(); err != nil {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if p.conn == nil {
		return 0, err
	}
	return p.conn.Read(b)
}

func (p *port) dial() (err error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	p.conn, err = net.Dial("unix", p.path)
	return err
}

func (p *port) Close() error {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.closed = true
	if p.conn == nil {
		return nil
	}
	return p.conn.Close()
}

// A patient reader of a FIFO does not take the time before the first writer for the end.
type patient struct{ *os.File }

func (p *patient) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		if _, err := p.File.Stat(); err != nil {
			return 0, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func read(ctx context.Context, order Order, answer *Answer) error {
	reader, closer, err := openOutput(ctx, order)
	if err != nil {
		return err
	}
	defer closer.Close()
	return take(ctx, order, reader, answer)
}

// take is io.Copy as the CRI uses it, with the same buffer, and the order's pauses.
func take(ctx context.Context, order Order, reader io.Reader, answer *Answer) error {
	sum := sha256.New()
	defer func() { answer.Sha256 = hexOf(sum) }()
	buffer := make([]byte, 32*1024)
	for {
		n, err := reader.Read(buffer)
		sum.Write(buffer[:n])
		before := answer.Size
		answer.Size += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if order.CancelAt >= 0 && answer.Size >= order.CancelAt {
			return nil
		}
		if before <= order.PauseAt && order.PauseAt < answer.Size {
			sleep(order.Pause)
		}
		sleep(order.Every)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// run is the CRI's way: the reader first, Wait before Start, and the reader is cancelled as soon as
// Wait has returned.
func run(order Order, answer *Answer) error {
	client, err := dial()
	if err != nil {
		return err
	}
	defer client.Close()
	tasks := task.NewTaskClient(client)
	ctx := context.Background()
	if _, err = tasks.Connect(ctx, &task.ConnectRequest{ID: order.Task}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, closer, err := openOutput(reading, order)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		err := take(reading, order, reader, answer)
		closer.Close()
		done <- err
	}()
	waited := make(chan error, 1)
	var exit *task.WaitResponse
	go func() {
		var err error
		exit, err = tasks.Wait(ctx, &task.WaitRequest{ID: order.Task, ExecID: order.Exec})
		waited <- err
	}()
	if _, err = tasks.Start(ctx, &task.StartRequest{ID: order.Task, ExecID: order.Exec}); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	began := time.Now()
	if err = <-waited; err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	cancel()
	if order.Stream == "" {
		closer.Close()
	}
	ended := time.Now()
	answer.Waited = ended.Sub(began).Seconds()
	answer.Exit = exit.ExitStatus
	<-done
	_, err = tasks.Delete(ctx, &task.DeleteRequest{ID: order.Task, ExecID: order.Exec})
	answer.Ended = time.Since(ended).Seconds()
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

func write(order Order, answer *Answer) error {
	ctx := context.Background()
	stream, err := open(ctx, order.Input, true)
	if err != nil {
		return err
	}
	sum := sha256.New()
	source := io.TeeReader(io.LimitReader(&pattern{}, order.Length), sum)
	if order.Receive {
		done := make(chan struct{})
		transfer.SendStream(ctx, &closing{source, done}, stream)
		<-done
		answer.Size = order.Length
	} else {
		writer := transfer.WriteByteStream(ctx, stream)
		answer.Size, err = io.Copy(writer, source)
		writer.Close()
	}
	answer.Sha256 = hexOf(sum)
	return err
}

// closing tells when its reader has seen the end.
type closing struct {
	io.Reader
	done chan struct{}
}

func (c *closing) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if err == io.EOF {
		close(c.done)
	}
	return n, err
}

// A pattern is an endless text without a short period.
type pattern struct{ state uint32 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		p.state = p.state*1664525 + 1013904223
		b[i] = byte(p.state >> 24)
	}
	return len(b), nil
}

func sleep(seconds float64) {
	if seconds > 0 {
		time.Sleep(time.Duration(seconds * float64(time.Second)))
	}
}

func hexOf(sum hash.Hash) string {
	return hex.EncodeToString(sum.Sum(nil))
}
