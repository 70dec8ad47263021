package rules

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
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
			fmt.Fprintf(&b, "%x %d %d %v %x %v\n", t.key, t.head, t.rung, t.mixed, t.window.write(t.head, nil), c.keys[t.key] == t)
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

// spoken is the language at login.after with a counter tried and a share.
var spoken = sync.OnceValues(func() (*cel.Env, error) {
	l, err := newLanguage(nil)
	if err != nil {
		return nil, err
	}
	d, err := l.dialect(LoginAfter)
	if err != nil {
		return nil, err
	}
	return d.condition.Extend(cel.Variable("tried", cel.IntType), cel.Variable("share", cel.DoubleType))
})

// Constancy compiles a condition and tries 50 drawn values of its variables. The error
// is one that gives what the search for constants called impossible.
func Constancy(when string, draw *rand.Rand) error {
	env, err := spoken()
	if err != nil {
		return err
	}
	ranges := map[string]values{"tried": counterRange(Counter{}), "share": counterRange(Counter{Ratio: "ambiguous"})}
	d := &document{lines: strings.Split(when, "\n"), ranges: ranges}
	d.compile(env, &yaml.Node{Kind: yaml.ScalarNode, Value: when, Line: 1, Column: 1}, "when")
	checked, issues := env.Compile(when)
	if issues.Err() != nil || !checked.OutputType().IsExactType(cel.BoolType) {
		if len(d.faults) == 0 {
			return fmt.Errorf("no fault is told of %q: %v", when, issues.Err())
		}
		return nil
	}
	if cost, err := env.EstimateCost(checked, sizes{}); err != nil || cost.Max > maxCost {
		return nil
	}
	program, err := env.Program(checked)
	if err != nil {
		return nil
	}
	c := &constancy{native: checked.NativeRep(), ranges: ranges, told: map[int64]string{}}
	can := c.judge(c.native.Expr(), world{}, true)
	for range 50 {
		facts := map[string]any{"time": types.Timestamp{Time: trialStart.Add(time.Duration(draw.Int64N(1 << 50)))}, "name": "ab", "source.address": "10.1.2.3"}
		for _, r := range c.native.ReferenceMap() {
			if _, known := facts[r.Name]; r.Name != "" && !known {
				facts[r.Name] = drawn(c, r.Name, draw)
			}
		}
		switch v, _, err := program.Eval(facts); {
		case err != nil:
		case v == types.True && !can.yes, v == types.False && !can.no:
			return fmt.Errorf("%q gives %v with %v, which was called impossible", when, v, facts)
		}
	}
	return nil
}

// drawn draws a value that a variable can have, near its bounds and near small numbers.
func drawn(c *constancy, name string, draw *rand.Rand) any {
	var kind *cel.Type
	for id, r := range c.native.ReferenceMap() {
		if r.Name == name {
			kind = c.native.GetType(id)
		}
	}
	limit := limits[name]
	if of, ok := c.ranges[name]; ok {
		limit = of
	}
	switch {
	case kind.IsExactType(cel.BoolType):
		return draw.IntN(2) == 0
	case kind.IsExactType(cel.IntType):
		return int64(min(float64(draw.IntN(1<<draw.IntN(12))), limit.span.most))
	case kind.IsExactType(cel.DoubleType):
		v := float64(draw.IntN(1<<draw.IntN(8))) / 4
		return math.Max(math.Min(v, limit.span.most), limit.span.least)
	case limit.words.only != nil:
		return limit.words.only[draw.IntN(len(limit.words.only))]
	}
	return []string{"", "a", "JP", "acme.example", "chrome"}[draw.IntN(5)]
}
