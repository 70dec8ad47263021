//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// connections is how many clients ask at once, each over a connection of its own
// that stays open for a burst.
const connections = 16

// client speaks as much HTTP/1.1 as the load needs. net/http's costs more CPU
// than a proxy does, and the other core would then be what is measured.
type client struct {
	conn net.Conn
	r    *bufio.Reader
	body []byte
}

func dial(address string) (*client, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, r: bufio.NewReaderSize(conn, 4096)}, nil
}

// ask sends a request and reads the answer. The body is good until the next call.
func (c *client) ask(request []byte) (status int, body []byte, err error) {
	if _, err := c.conn.Write(request); err != nil {
		return 0, nil, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, nil, fmt.Errorf("reading an answer: %w", err)
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, fmt.Errorf("not an answer: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("not a status: %q", line)
	}
	length := -1
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return 0, nil, fmt.Errorf("reading the header of a %d: %w", status, err)
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil || length < 0 || length > 1<<20 {
				return 0, nil, fmt.Errorf("not a length: %q", line)
			}
		}
	}
	if length < 0 {
		return 0, nil, fmt.Errorf("the answer with status %d has no length", status)
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	for read := 0; read < length; {
		n, err := c.r.Read(c.body[read:])
		if err != nil {
			return 0, nil, fmt.Errorf("reading the body of a %d: %w", status, err)
		}
		read += n
	}
	return status, c.body, nil
}

// burst is what n requests cost.
type burst struct {
	requests  int
	cpu, wall time.Duration
}

// perRequest is the CPU time of a request in microseconds.
func (b burst) perRequest() float64 {
	return float64(b.cpu.Nanoseconds()) / 1e3 / float64(b.requests)
}

// plus joins two bursts.
func (b burst) plus(c burst) burst {
	return burst{b.requests + c.requests, b.cpu + c.cpu, b.wall + c.wall}
}

// rate is in requests a second.
func (b burst) rate() float64 { return float64(b.requests) / b.wall.Seconds() }

// busy is the part of the time that the process was computing.
func (b burst) busy() float64 { return b.cpu.Seconds() / b.wall.Seconds() }

// crew is the clients of one proxy. They all ask for the same thing, and every
// answer must be a 200 with that body.
type crew struct {
	clients []*client
	request []byte
	body    string
}

func (c *crew) close() {
	for _, cl := range c.clients {
		cl.conn.Close()
	}
}

// hire connects a crew to address. That needs nobody's time there: the kernel
// accepts connections for a process that is stopped.
func hire(address string, request []byte, body string) (*crew, error) {
	c := &crew{request: request, body: body}
	for range connections {
		cl, err := dial(address)
		if err != nil {
			c.close()
			return nil, err
		}
		cl.conn.SetDeadline(time.Now().Add(2 * time.Minute))
		c.clients = append(c.clients, cl)
	}
	return c, nil
}

// load asks n times after a fifth of that to warm up, and reads the CPU clock
// before and after.
func (c *crew) load(n int, cpu func() (time.Duration, error)) (burst, error) {
	if err := c.spend(n / 5); err != nil {
		return burst{}, err
	}
	before, err := cpu()
	if err != nil {
		return burst{}, err
	}
	begun := time.Now()
	if err := c.spend(n); err != nil {
		return burst{}, err
	}
	wall := time.Since(begun)
	after, err := cpu()
	if err != nil {
		return burst{}, err
	}
	return burst{requests: n, cpu: after - before, wall: wall}, nil
}

// spend asks n times with all clients at once.
func (c *crew) spend(n int) error {
	var left atomic.Int64
	left.Store(int64(n))
	errs := make([]error, len(c.clients))
	var all sync.WaitGroup
	for i, cl := range c.clients {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				status, got, err := cl.ask(c.request)
				if err == nil && (status != 200 || string(got) != c.body) {
					err = fmt.Errorf("the answer is %d %.300q, want 200 %.300q", status, got, c.body)
				}
				if err != nil {
					errs[i] = err
					left.Store(0)
					return
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
