package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// Hash is the same for sets of the same rules in the same text, on every node: SHA-256
// over their ids and generations, in hex.
func (s *Set) Hash() string {
	lines := make([]string, len(s.rules))
	for i, r := range s.rules {
		lines[i] = string(r.ID) + " " + r.Generation
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
