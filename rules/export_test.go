package rules

import (
	"fmt"
	"maps"
	"strings"

	"github.com/kidoban/kidoban/detectors"
)

// Counting opens one counter for comparing it with a list of events.
type Counting struct{ c *counter }

func NewCounting(spec Counter) Counting { return Counting{newCounter(spec, nil)} }

func (c Counting) Observe(e detectors.Event)     { _ = c.c.observe(&facts{event: &e}) }
func (c Counting) Value(e detectors.Event) int64 { return c.c.value(&e) }
func (c Counting) Sizes() (keys, members int)    { return len(c.c.keys), c.c.members }

const (
	MaxKeys     = maxKeys
	MaxDistinct = maxDistinct
)

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
		fmt.Fprintf(&b, "%q %x %d keys %d members\n", c.identity(), c.hash, len(c.keys), c.members)
		n := 0
		for t := c.oldest; t != nil; t = t.newer {
			n++
			members := maps.Clone(t.many)
			if members == nil {
				members = map[uint64]int64{}
			}
			for _, m := range t.few {
				members[m.value] = m.pane
			}
			fmt.Fprintln(&b, t.key, t.head, t.counts, members, c.keys[t.key] == t)
		}
		fmt.Fprintln(&b, n)
	}
	return b.String()
}

// SipHash is sum with a given key.
func SipHash(key [16]byte, text string) uint64 { return (*hashKey)(&key).sum(text) }

// Fresh is a set of the rules of s that has counted nothing.
func Fresh(s *Set) *Set {
	var fresh []*compiled
	for _, r := range s.rules {
		fresh = append(fresh, r.fresh())
	}
	return newSet(fresh)
}
