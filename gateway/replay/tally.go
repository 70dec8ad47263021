package replay

import (
	"maps"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// Change is what became of a rule from OLD to NEW.
type Change string

const (
	Same    Change = "same"    // the same file and lists, so the same hits
	Added   Change = "added"   // only in NEW
	Changed Change = "changed" // in both, and its file or a list that it asks is not the same
	Removed Change = "removed" // only in OLD
)

// tally is what is counted of one rule.
type tally struct {
	id       rules.ID
	change   Change
	old, new *rules.Rule // nil: not in that set

	oldHits, newHits uint64
	// hits of which an action could not be done
	oldInstead, newInstead uint64
	byNew                  group // hits of NEW
	gained, lost           group // hits of NEW alone, of OLD alone
	wasHit, isHit          bool  // by the event at hand

	wasInstead, isInstead bool // about which an action could not be done
}

// group is whom hits are about, in bounded memory.
type group struct {
	hits, summed                   uint64
	names, accounts, organizations distinct
	who                            sample
}

func (g *group) add(e *detectors.Event, who uint64, summed bool) {
	g.hits++
	if summed {
		g.summed++
		return
	}
	if !e.Name.Digest.IsZero() {
		g.names.add(digestHash(e.Name.Digest))
	}
	if e.Account != "" {
		g.accounts.add(accountHash(e))
	}
	if e.Organization != "" {
		g.organizations.add(hash64(e.Organization))
	}
	if who != 0 {
		g.who.hit(who, e)
	}
}

// compare lists the rules of both sets: what differs first, then by name.
func compare(old, new *rules.Set) []*tally {
	byID := make(map[rules.ID]*tally)
	var all []*tally
	at := func(id rules.ID) *tally {
		t := byID[id]
		if t == nil {
			t = &tally{id: id}
			byID[id] = t
			all = append(all, t)
		}
		return t
	}
	for _, r := range old.Rules() {
		at(r.ID).old = &r
	}
	for _, r := range new.Rules() {
		at(r.ID).new = &r
	}
	rank := map[Change]int{Same: 1}
	for _, t := range all {
		switch {
		case t.old == nil:
			t.change = Added
		case t.new == nil:
			t.change = Removed
		case t.old.Generation != t.new.Generation || !maps.Equal(t.old.Lists, t.new.Lists):
			t.change = Changed
		default:
			t.change = Same
		}
	}
	slices.SortFunc(all, func(a, b *tally) int {
		if d := rank[a.change] - rank[b.change]; d != 0 {
			return d
		}
		return strings.Compare(string(a.id), string(b.id))
	})
	return all
}
