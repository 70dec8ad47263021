package rules

import (
	"fmt"
	"sync/atomic"
	"time"

	"cel.dev/cel-go/cel"
)

// exemption is one of a rule's, ready to be asked.
type exemption struct {
	Exemption
	when    *expression // or
	list    *list
	matches atomic.Uint64
	latest  atomic.Int64 // Unix nanoseconds of the event; 0: none
}

// Exempted is how often an exemption kept a rule from matching.
type Exempted struct {
	Rule      ID        `json:"rule"`
	Exemption Exemption `json:"exemption"`
	Matches   uint64    `json:"matches"` // since the gate started
	Latest    time.Time `json:"latest,omitzero"`
}

// compileExemptions makes a rule's exemptions ready. They see the event alone.
func (r *draft) compileExemptions(env *cel.Env) []*exemption {
	var all []*exemption
	for _, x := range r.exemptions {
		out := &exemption{Exemption: x.Exemption}
		if x.when != nil {
			out.when = r.compile(env, x.when, "except.when")
		}
		if x.list != nil && x.List != "" {
			if out.list = r.lists[x.List]; out.list == nil {
				r.fault(x.list, "except.list: no list %q is in force: want one of %s", x.List, r.lists.names())
			}
		}
		all = append(all, out)
		r.Except = append(r.Except, x.Exemption)
	}
	return all
}

// covers reports whether x speaks for e. An exemption that cannot be evaluated does
// not.
func (x *exemption) covers(f *facts) (bool, error) {
	if !f.event.Time.Before(x.Until) {
		return false, nil
	}
	if x.list != nil {
		return x.list.has(x.list.kind.value(f.event)), nil
	}
	return x.when.holds(f)
}

func (x *exemption) fresh() *exemption {
	return &exemption{Exemption: x.Exemption, when: x.when, list: x.list}
}

// exempts reports whether an exemption speaks for an event that r matched, and counts
// that: what is exempted stays visible.
func (r *compiled) exempts(f *facts) bool {
	for i, x := range r.except {
		covered, err := x.covers(f)
		if err != nil {
			err = fmt.Errorf("rule %s: except, number %d: when: %w", r.ID, i+1, err)
			r.failure.Store(&err)
		}
		if covered {
			x.matches.Add(1)
			x.latest.Store(f.event.Time.UnixNano())
			return true
		}
	}
	return false
}

// Exempted tells of every exemption in force what it did, by rule in the order of
// findings.
func (s *Set) Exempted() []Exempted {
	var all []Exempted
	for _, r := range s.rules {
		for _, x := range r.except {
			e := Exempted{Rule: r.ID, Exemption: x.Exemption, Matches: x.matches.Load()}
			if at := x.latest.Load(); at != 0 {
				e.Latest = time.Unix(0, at).UTC()
			}
			all = append(all, e)
		}
	}
	return all
}

// adoptExempted takes over what the same exemptions of the same rules did.
func (s *Set) adoptExempted(old *Set) {
	type key struct {
		rule ID
		of   Exemption
	}
	was := map[key]*exemption{}
	for _, r := range old.rules {
		for _, x := range r.except {
			was[key{r.ID, x.Exemption}] = x
		}
	}
	for _, r := range s.rules {
		for _, x := range r.except {
			if o := was[key{r.ID, x.Exemption}]; o != nil {
				x.matches.Store(o.matches.Load())
				x.latest.Store(o.latest.Load())
			}
		}
	}
}
