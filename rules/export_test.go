package rules

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kidoban/kidoban/detectors"
)

// Counting opens one counter for comparing it with a list of events. Its hashes have
// no secret, so that estimates are the same each time.
type Counting struct {
	c    *counter
	pool *pool
}

// NewCounting is a counter with limits of its own.
func NewCounting(spec Counter, l Limits) Counting {
	var ratio *expression
	if spec.Ratio != "" {
		l, err := newLanguage(nil)
		if err != nil {
			panic(err)
		}
		ratio = (&document{lines: []string{spec.Ratio}}).compile(l.event, &yaml.Node{Line: 1, Column: 1, Value: spec.Ratio}, "ratio")
	}
	c := newCounter(spec, nil, ratio)
	c.hash = hashKey{}
	s := &Set{order: []*counter{c}}
	s.Limit(l)
	return Counting{c, s.pool}
}

func (c Counting) Observe(e detectors.Event) {
	f := newFacts(&e, nil, nil)
	defer f.release()
	if err := c.c.observe(f); err != nil {
		panic(err)
	}
}

func (c Counting) Value(e detectors.Event) float64 { return c.c.ask(&e) }
func (c Counting) Usage() Usage                    { return c.c.usage() }

// Check reports whether what is accounted for is what is there.
func (c Counting) Check() error {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	n, keys, wide := 0, 0, 0
	for t := c.c.oldest; t != nil; t = t.newer {
		n += keyBytes + t.bytes()
		keys++
		if t.rung > c.c.rung {
			wide++
		}
		if c.c.keys[t.key] != t {
			return fmt.Errorf("key %d is lost", t.key)
		}
	}
	if r := c.c.room; int64(n) != r.bytes || keys != len(c.c.keys) || wide != c.c.widened || max(r.bytes-r.own, 0) != r.pool.used.Load() {
		return fmt.Errorf("%d bytes of %d keys, %d wide, with %d of the pool; accounted for are %d of %d, %d wide", n, keys, wide, r.pool.used.Load(), r.bytes, len(c.c.keys), c.c.widened)
	}
	return nil
}

const (
	MaxExact = maxExact
	KeyBytes = keyBytes
)

// Values asks all counters of s, in the order of Memory.
func Values(s *Set, e detectors.Event) (values []float64) {
	for _, c := range s.order {
		values = append(values, c.ask(&e))
	}
	return values
}

// Variables lists what conditions can say of an event: name, type, meaning.
func Variables() (rows [][3]string) {
	for _, v := range variables {
		rows = append(rows, [3]string{v.name, v.kind.TypeName(), v.meaning})
	}
	return rows
}

// Dump is all that the counters of s keep, to be compared with another's.
func Dump(s *Set) string {
	var b strings.Builder
	for _, c := range s.order {
		fmt.Fprintf(&b, "%q %x %d keys\n", c.identity(), c.hash, len(c.keys))
		n := 0
		for t := c.oldest; t != nil; t = t.newer {
			n++
			fmt.Fprintf(&b, "%x %d %x %v\n", t.key, t.head, t.window.write(t.head, nil), c.keys[t.key] == t)
		}
		fmt.Fprintln(&b, n)
	}
	return b.String()
}

// SipHash is sum with a given key.
func SipHash(key [16]byte, text string) uint64 { return (*hashKey)(&key).sum([]byte(text)) }

// Fresh is a set of the rules of s that has counted nothing.
func Fresh(s *Set) *Set {
	var fresh []*compiled
	for _, r := range s.rules {
		fresh = append(fresh, r.fresh())
	}
	return newSet(fresh)
}
