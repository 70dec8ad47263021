package rules

// Only is a set of the rules of s that keep wants. Like that of [Set.Fresh] it has
// counted nothing, and the rules' tests are not run again.
func (s *Set) Only(keep func(Rule) bool) *Set {
	var rules []*compiled
	for _, r := range s.rules {
		if keep(r.Rule) {
			rules = append(rules, r.fresh())
		}
	}
	return newSet(rules)
}
