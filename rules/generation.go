package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
)

// Hash is the same for sets of the same rules in the same text that ask the same lists,
// on every node: SHA-256 over their ids and generations, and names and digests of the
// lists, in hex. Lists that no rule asks do not count.
func (s *Set) Hash() string {
	lines := make([]string, len(s.rules))
	for i, r := range s.rules {
		lines[i] = string(r.ID) + " " + r.Generation
		for _, name := range slices.Sorted(maps.Keys(r.Lists)) {
			lines[i] += " " + name + " " + r.Lists[name]
		}
	}
	slices.Sort(lines)
	sum := sha256.New()
	for _, line := range lines {
		fmt.Fprintln(sum, line)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Rule is the rule with an id, if it is in force.
func (s *Set) Rule(id ID) (Rule, bool) {
	i := slices.IndexFunc(s.rules, func(r *compiled) bool { return r.ID == id })
	if i < 0 {
		return Rule{}, false
	}
	return s.rules[i].Rule, true
}
