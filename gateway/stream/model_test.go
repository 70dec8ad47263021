package stream

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/detectors"
)

// fataler is a test, or a run of rapid's.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// world is nodes, the logs between them and the time, all of which a test moves.
type world struct {
	now      time.Time
	logs     [logs][]incoming
	last     [logs]position
	nodes    []*simulated
	fault    bool                     // order is promised without faults only
	ahead    map[string]time.Duration // nodes' clocks
	perished bool                     // a process ended while its disk was full
}

func newWorld() *world {
	return &world{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC), ahead: make(map[string]time.Duration)}
}

var errAway = errors.New("the server is away")

// simulated is a node of a world, and its transport.
type simulated struct {
	w         *world
	name      string
	dir       string
	lives     uint64
	cut       bool          // from the server
	deaf      bool          // what it appends arrives, the answer does not
	most      int           // entries it reads at a time
	full      bool          // its disk
	made      []*os.File    // on it
	clock     time.Duration // ahead of the world's
	meanwhile func()        // once, while the server has what is appended and has not answered
	stream    *Stream
	config    Config
	applied   map[detectors.EventKey]int
	highest   map[senderID]uint64
	disorder  bool
	unsent    uint64 // by earlier lives
	kept      Vector // a snapshot, and what belongs to it
	keptState map[detectors.EventKey]int
}

// String is short, for rapid's reports.
func (n *simulated) String() string { return n.name }

func (n *simulated) append(_ context.Context, batch []outgoing) ([]position, error) {
	if n.cut {
		return nil, errAway
	}
	var at []position
	for _, m := range batch {
		p := position{ms: uint64(n.w.now.UnixMilli())}
		if last := n.w.last[m.log]; !last.before(p) {
			p = position{last.ms, last.seq + 1}
		}
		n.w.last[m.log] = p
		n.w.logs[m.log] = append(n.w.logs[m.log], incoming{m.log, p, slices.Clone(m.payload)})
		at = append(at, p)
	}
	if n.meanwhile != nil {
		step := n.meanwhile
		n.meanwhile = nil
		step()
	}
	if n.deaf {
		return nil, errAway
	}
	return at, nil
}

func (n *simulated) read(_ context.Context, after [logs]position, most int, _ time.Duration) (in []incoming, err error) {
	if n.cut {
		return nil, errAway
	}
	for log := range after {
		count := 0
		for _, m := range n.w.logs[log] {
			if after[log].before(m.at) && count < most {
				in = append(in, incoming{log, m.at, slices.Clone(m.payload)})
				count++
			}
		}
	}
	return in, nil
}

func (n *simulated) probe(_ context.Context, places []place) (time.Time, []bool, error) {
	if n.cut {
		return time.Time{}, nil, errAway
	}
	held := make([]bool, len(places))
	for i, p := range places {
		held[i] = slices.ContainsFunc(n.w.logs[p.log], func(m incoming) bool { return m.at == p.at })
	}
	return n.w.now, held, nil
}

var errFull = errors.New("no space is left on the disk")

// newFile makes a file on the node's disk.
func (n *simulated) newFile(path string) (file, error) {
	if n.full {
		return nil, errFull
	}
	f, err := newFile(path)
	if made, ok := f.(*os.File); ok {
		n.made = append(n.made, made)
	}
	return disk{f, n}, err
}

// taken is how many bytes of the disk files take, also such that were removed and are
// still open.
func (n *simulated) taken(t fataler) (sum int64) {
	for _, f := range n.made {
		info, err := f.Stat()
		if errors.Is(err, fs.ErrClosed) {
			info, err = os.Stat(f.Name())
		}
		switch {
		case err == nil:
			sum += info.Size()
		case !errors.Is(err, fs.ErrNotExist):
			t.Fatal(err)
		}
	}
	return sum
}

// disk is a file on a disk that may be full: then half of what is written fits.
type disk struct {
	file
	n *simulated
}

func (f disk) Write(b []byte) (int, error) {
	if !f.n.full {
		return f.file.Write(b)
	}
	k, _ := f.file.Write(b[:len(b)/2])
	return k, errFull
}

func (f disk) Truncate(size int64) error {
	if f.n.full {
		return errFull
	}
	return f.file.Truncate(size)
}

func (w *world) add(t fataler, name, dir string, configure func(*Config)) *simulated {
	n := &simulated{w: w, name: name, dir: dir, clock: w.ahead[name], applied: make(map[detectors.EventKey]int)}
	n.config = Config{Node: name, Now: func() time.Time { return w.now.Add(n.clock) }, Dir: dir}
	if configure != nil {
		configure(&n.config)
	}
	w.nodes = append(w.nodes, n)
	n.start(t)
	return n
}

func (n *simulated) start(t fataler) {
	n.lives++
	c := n.config
	c.Incarnation = n.lives
	if err := c.complete(); err != nil {
		t.Fatal(err)
	}
	s, err := open(c, n, n.newFile)
	if err != nil {
		t.Fatal(err)
	}
	n.stream, n.highest = s, make(map[senderID]uint64)
	n.applied = maps.Clone(n.keptState)
	if n.applied == nil {
		n.applied = make(map[detectors.EventKey]int)
	}
	if err := s.Replay(context.Background(), n.kept, func(e detectors.Event) error { n.applied[e.Key]++; return nil }); err != nil {
		t.Fatal(err)
	}
	s.Subscribe(func(e detectors.Event) {
		if latest := c.Now().Add(Skew); e.StreamTime.After(latest) || e.Time.Sub(e.StreamTime).Abs() > Skew {
			t.Fatalf("%s got %v of %v at %v, the latest is %v", n.name, e.Key, e.Time, e.StreamTime, latest)
		}
		n.applied[e.Key]++
		id := senderID{e.Key.Node, e.Key.Incarnation}
		if e.Key.Sequence < n.highest[id] {
			n.disorder = true
		}
		n.highest[id] = max(n.highest[id], e.Key.Sequence)
	})
}

// crash ends the process as kill -9 does.
func (n *simulated) crash() {
	j := n.stream.journal
	for _, s := range append(slices.Clone(j.unsynced), j.segments...) {
		if s.file != nil {
			s.file.Close()
			s.file = nil
		}
	}
}

func (n *simulated) restart(t fataler, kept bool) {
	st := n.stream.Status()
	n.unsent += st.Unsent
	n.crash()
	before := n.applied
	if !kept {
		if err := os.RemoveAll(n.dir); err != nil {
			t.Fatal(err)
		}
		n.kept, n.keptState = nil, nil
	}
	n.start(t)
	n.w.perished = n.w.perished || st.Journal.Memory > 0
	if kept && st.Journal.Memory == 0 && st.Journal.Unkept == 0 && !maps.Equal(before, n.applied) {
		t.Fatalf("%s had %d events applied, and has %d after its restart", n.name, len(before), len(n.applied))
	}
}

func (n *simulated) publish() {
	n.stream.Publish(detectors.Event{Kind: detectors.Login, Outcome: detectors.Failure, Account: "tanaka"})
}

// publishLarge publishes an event that makes journals go round.
func (n *simulated) publishLarge() {
	long := strings.Repeat("a", longest)
	n.stream.Publish(detectors.Event{Kind: detectors.Login, Account: detectors.Account(long), Session: long, Reason: long, Credential: long,
		Fingerprint: long, Organization: detectors.Organization(long)})
}

func (n *simulated) snapshot() {
	n.stream.Snapshot(func(v Vector) { n.kept, n.keptState = v, maps.Clone(n.applied) })
}

func (n *simulated) send() { _, _ = n.stream.sendStep(context.Background(), sendBytes) }

func (n *simulated) receive() {
	most := readEntries
	if n.most > 0 {
		most = n.most
	}
	_ = n.stream.receiveStep(context.Background(), most, 0)
}

// settle heals all and lets the nodes exchange what they have, for at most d.
func (w *world) settle(d time.Duration) {
	for _, n := range w.nodes {
		n.cut, n.deaf, n.most, n.full = false, false, 0, false
		n.stream.tend()
	}
	quiet := 0
	for end := w.now.Add(d); w.now.Before(end) && quiet < 12; w.now = w.now.Add(250 * time.Millisecond) {
		for _, n := range w.nodes {
			n.send()
			n.receive()
		}
		quiet++
		for _, n := range w.nodes {
			if st := n.stream.Status(); st.GapsOpen > 0 || st.Spooled > 0 || st.Degraded {
				quiet = 0
			}
		}
	}
}

// equal checks that all nodes have applied the same events, each once, and that
// what one lacks is counted. published is what must not be missing. With bounded
// journals, and after a process that ended while its disk was full, events may be
// missing that no journal holds.
func (w *world) equal(t fataler, published map[detectors.EventKey]bool, bounded bool) {
	t.Helper()
	union := make(map[detectors.EventKey]bool)
	held := make(map[detectors.EventKey]bool) // by a journal
	for _, n := range w.nodes {
		for key, times := range n.applied {
			if times != 1 {
				t.Fatalf("%s applied %v %d times", n.name, key, times)
			}
			union[key] = true
		}
		if err := n.stream.journal.replay(make(senders), func(e detectors.Event) error { held[e.Key] = true; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range w.nodes {
		missing := make(map[detectors.EventKey]bool)
		var lacks uint64
		for _, seen := range n.stream.Vector() {
			for _, m := range seen.Missing {
				lacks += m.High - m.Low + 1
				for seq := m.Low; seq <= m.High; seq++ {
					missing[detectors.EventKey{Node: seen.Node, Incarnation: seen.Incarnation, Sequence: seq}] = true
				}
			}
		}
		for key := range union {
			if n.applied[key] == 0 && (held[key] || !missing[key] || !bounded && !w.perished) {
				t.Fatalf("%s lacks %v\nvector %+v\nstatus %+v", n.name, key, n.stream.Vector(), n.stream.Status())
			}
		}
		st := n.stream.Status()
		if st.GapsOpen > 0 || lacks != st.Lost+st.Skipped {
			t.Fatalf("%s lacks %d events and counts %d lost, %d skipped, %d awaited", n.name, lacks, st.Lost, st.Skipped, st.GapsOpen)
		}
		if st.Spooled > 0 || st.Journal.Error != "" || n.dir != "" && st.Journal.Memory > 0 {
			t.Fatalf("%s is not well: %+v", n.name, st)
		}
		if n.disorder && !w.fault {
			t.Fatalf("%s saw events of a sender out of order without any fault", n.name)
		}
		if bounded && !w.fault {
			// What its journal could not hold is what the others lack, no more and no less.
			for _, other := range w.nodes {
				var lost uint64
				for key := range union {
					if key.Node == n.name && other.applied[key] == 0 {
						lost++
					}
				}
				if other != n && lost != st.Unsent+n.unsent {
					t.Fatalf("%s lacks %d events of %s, which counted %d", other.name, lost, n.name, st.Unsent+n.unsent)
				}
			}
		}
	}
	for key := range published {
		if !union[key] {
			t.Fatalf("%v is nowhere", key)
		}
	}
}

// TestModel runs random schedules of everything that may happen between nodes.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "stream-model-")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		w := newWorld()
		bounded := rapid.Bool().Draw(rt, "bounded")
		for i := range rapid.IntRange(2, 3).Draw(rt, "nodes") {
			name := string(rune('a' + i))
			w.ahead[name] = time.Duration(rapid.IntRange(-600, 600).Draw(rt, "clock")) * time.Second
			w.add(rt, name, dir+"/"+name, func(c *Config) {
				c.GiveUp = 10 * time.Second
				if bounded {
					c.JournalBytes = 4 * smallestSegment
				}
			})
		}
		defer func() {
			for _, n := range w.nodes {
				n.crash()
			}
		}()
		must := make(map[detectors.EventKey]bool) // published by nodes whose journal was never destroyed
		node := rapid.Custom(func(rt *rapid.T) *simulated { return w.nodes[rapid.IntRange(0, len(w.nodes)-1).Draw(rt, "node")] })
		actions := map[string]func(*rapid.T){
			"publish": func(rt *rapid.T) {
				n := node.Draw(rt, "n")
				for range rapid.IntRange(1, 20).Draw(rt, "events") {
					n.publish()
					if n.stream.Status().Journal.Error == "" { // or it may go with the process
						must[detectors.EventKey{Node: n.name, Incarnation: n.lives, Sequence: n.stream.sequence}] = true
					}
				}
			},
			"publish large": func(rt *rapid.T) {
				n := node.Draw(rt, "n")
				if !bounded {
					rt.Skip()
				}
				for range rapid.IntRange(1, 12).Draw(rt, "events") {
					n.publishLarge()
				}
			},
			"send and meanwhile": func(rt *rapid.T) {
				n := node.Draw(rt, "n")
				events, large := rapid.IntRange(0, 12).Draw(rt, "events"), bounded && rapid.Bool().Draw(rt, "large")
				receive, tend := rapid.Bool().Draw(rt, "receive"), rapid.Bool().Draw(rt, "tend")
				n.meanwhile = func() {
					for range events {
						if large {
							n.publishLarge()
						} else {
							n.publish()
						}
					}
					if receive {
						n.receive()
					}
					if tend {
						n.stream.tend()
					}
				}
				n.send()
				n.meanwhile = nil
			},
			"disk full": func(rt *rapid.T) { node.Draw(rt, "n").full = true },
			"disk well": func(rt *rapid.T) { node.Draw(rt, "n").full = false },
			"send":      func(rt *rapid.T) { node.Draw(rt, "n").send() },
			"receive":   func(rt *rapid.T) { node.Draw(rt, "n").receive() },
			"all": func(rt *rapid.T) {
				for _, n := range w.nodes {
					n.send()
					n.receive()
				}
			},
			"wait": func(rt *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 4000).Draw(rt, "ms")) * time.Millisecond)
			},
			"trim": func(rt *rapid.T) {
				log := rapid.IntRange(0, logs-1).Draw(rt, "log")
				k := rapid.IntRange(0, len(w.logs[log])).Draw(rt, "k")
				w.logs[log] = w.logs[log][k:]
				w.fault = true
			},
			"drop": func(rt *rapid.T) { // entries in the middle
				log := rapid.IntRange(0, logs-1).Draw(rt, "log")
				if len(w.logs[log]) > 0 {
					k := rapid.IntRange(0, len(w.logs[log])-1).Draw(rt, "k")
					w.logs[log] = slices.Delete(slices.Clone(w.logs[log]), k, k+1)
				}
				w.fault = true
			},
			"fail over": func(rt *rapid.T) {
				for log := range w.logs {
					k := rapid.IntRange(0, min(len(w.logs[log]), 10)).Draw(rt, "lost")
					w.logs[log] = w.logs[log][:len(w.logs[log])-k]
					w.last[log] = position{}
					if n := len(w.logs[log]); n > 0 {
						w.last[log] = w.logs[log][n-1].at
					}
				}
				w.now = w.now.Add(time.Second)
				w.fault = true
			},
			"restart empty": func(rt *rapid.T) {
				w.logs, w.last = [logs][]incoming{}, [logs]position{}
				w.now = w.now.Add(10 * time.Millisecond)
				w.fault = true
			},
			"partition": func(rt *rapid.T) { node.Draw(rt, "n").cut = true },
			"deaf":      func(rt *rapid.T) { node.Draw(rt, "n").deaf = true; w.fault = true },
			"slow":      func(rt *rapid.T) { node.Draw(rt, "n").most = rapid.IntRange(1, 4).Draw(rt, "entries") },
			"heal": func(rt *rapid.T) {
				n := node.Draw(rt, "n")
				n.cut, n.deaf, n.most = false, false, 0
			},
			"tend": func(rt *rapid.T) {
				node.Draw(rt, "n").stream.tend()
			},
			"snapshot": func(rt *rapid.T) {
				node.Draw(rt, "n").snapshot()
			},
			"restart": func(rt *rapid.T) {
				n := node.Draw(rt, "n")
				if bounded { // a small journal does not hold all for a replay
					n.snapshot()
				}
				n.restart(rt, true)
				w.fault = true
			},
			"destroy": func(rt *rapid.T) {
				n := node.Draw(rt, "n")
				n.restart(rt, false)
				maps.DeleteFunc(must, func(key detectors.EventKey, _ bool) bool { return key.Node == n.name })
				w.fault = true
			},
			"": func(rt *rapid.T) {
				for _, n := range w.nodes {
					for key, times := range n.applied {
						if times != 1 {
							rt.Fatalf("%s applied %v %d times", n.name, key, times)
						}
					}
				}
			},
		}
		if rapid.Bool().Draw(rt, "calm") { // nothing of what makes counts inexact and order a matter of luck
			for _, fault := range []string{"trim", "drop", "fail over", "restart empty", "deaf", "restart", "destroy"} {
				delete(actions, fault)
			}
		}
		rt.Repeat(actions)
		w.settle(5 * time.Minute)
		if bounded {
			clear(must) // equal counts instead
		}
		w.equal(rt, must, bounded)
		if n := len(w.nodes); w.nodes[0].stream.Nodes() != n {
			rt.Fatalf("%d nodes alive, want %d: %+v", w.nodes[0].stream.Nodes(), n, w.nodes[0].stream.Status())
		}
	})
}
