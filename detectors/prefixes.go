package detectors

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// PrefixesConfig sets up [Prefixes]. The zero value is a good one, without a learning
// window.
type PrefixesConfig struct {
	LearningUntil time.Time // as for [Sequential]
	Prefixes      int       // kept of each length; 0: 262,144
}

// Prefixes is the test of [Sequential] for wider networks: the /24 around an IPv4
// address, the /56, /48 and /32 around an IPv6 /64. Whoever is given a prefix has all
// addresses of it, and can use a new one for each attempt.
//
// A wider network answers for its members only on the evidence of several: of each
// counting network the first three names count that fail from strangers, and no prefix
// is flagged before four members failed. Members that succeed take ratio off; the
// credit of a /32 has no cap, since it may be a whole provider, that of the others has
// the cap of a source. A prefix that is idle for 12 h starts again from 0, so what was
// widened narrows by itself.
//
// It keeps per prefix what Sequential keeps per source, for at most Prefixes of each
// length, and says [Signal]s prefix.sequential, of the strongest prefix around e, and
// prefix.flagged.
//
// It accepts this false positive: a small provider whose customers are all new here
// and mistype, three names each.
type Prefixes struct {
	config PrefixesConfig
	levels [4]*walker
}

var prefixLevels = [4]struct{ v6, bits int }{{0, 24}, {1, 56}, {1, 48}, {1, 32}}

const prefixMembers = 4

// NewPrefixes returns a detector that has seen nothing.
func NewPrefixes(c PrefixesConfig) *Prefixes {
	if c.Prefixes <= 0 {
		c.Prefixes = 1 << 18
	}
	p := &Prefixes{config: c}
	for i, level := range prefixLevels {
		cap := 100.0
		if level.bits == 32 {
			cap = unlimited
		}
		p.levels[i] = newWalker(c.Prefixes, cap, c.LearningUntil)
	}
	return p
}

// unlimited is a cap that nobody reaches.
const unlimited = 1e15

// Signals implements [Detector].
func (p *Prefixes) Signals() []Description {
	return []Description{
		{Name: "prefix.sequential", Unit: "nats", Max: 109,
			Meaning: "as source.sequential, of the strongest of the /24 of an IPv4 address, the /56, /48 and /32 of an IPv6 address; three names of each member count"},
		{Name: "prefix.flagged", Unit: "0 or 1", Max: 1, Meaning: "1 while prefix.sequential is at or above 9.2 and four members or more failed"},
	}
}

// level is the key of the prefix around e at a level, and whether there is one.
func level(e *Event, i int) (sourceKey, bool) {
	a := e.Source.Address
	l := prefixLevels[i]
	if !a.IsValid() || a.Is4() != (l.v6 == 0) {
		return 0, false
	}
	if a.Is4() {
		b := a.As4()
		return sourceKey(mix(uint64(binary.BigEndian.Uint32(b[:])>>8) | 24<<40)), true
	}
	b := a.As16()
	return sourceKey(mix(binary.BigEndian.Uint64(b[:8])>>(64-l.bits) ^ uint64(l.bits)<<57)), true
}

// Assess implements [Detector].
func (p *Prefixes) Assess(e Event) []Signal { return p.assess(&e) }

func (p *Prefixes) assess(e *Event) []Signal {
	var strongest *walkState
	bits := 0
	for i, w := range p.levels {
		k, ok := level(e, i)
		if !ok {
			continue
		}
		v := w.standing(k, e.Time)
		if v == nil || v.members < prefixMembers {
			continue
		}
		if strongest == nil || v.ratio > strongest.ratio {
			strongest, bits = v, prefixLevels[i].bits
		}
	}
	if strongest == nil {
		return nil
	}
	s := Signal{Name: "prefix.sequential", Value: strongest.ratio}
	if strongest.ratio < sequentialLimit {
		return []Signal{s}
	}
	s.Why = fmt.Sprintf("%d different names failed from %d networks of %s, %d succeeded",
		strongest.failed, strongest.members, netip.PrefixFrom(e.Source.Address, bits).Masked(), strongest.passed)
	return []Signal{s, {Name: "prefix.flagged", Value: 1, Why: s.Why}}
}

// Observe implements [Detector].
func (p *Prefixes) Observe(e Event) { p.observe(&e) }

func (p *Prefixes) observe(e *Event) {
	if !e.Source.Address.IsValid() {
		return
	}
	member := mix(uint64(keyOf(e.Source)) ^ memberSalt)
	for i, w := range p.levels {
		if k, ok := level(e, i); ok {
			w.walk(k, e, people, member)
		}
	}
}

func (p *Prefixes) form() string { return "prefixes/2" }
func (p *Prefixes) tables() (all []pieces) {
	for _, w := range p.levels {
		all = append(all, w.subjects)
	}
	return all
}
func (p *Prefixes) empty() stored { return NewPrefixes(p.config) }
