package simulate

import "slices"

// Scale is s with f times as many people, companies, attempts and sources, for a quick
// look. Rates of one person and one source stay as they are, so shares stay comparable;
// counts do not. 1 changes nothing.
func (s Scenario) Scale(f float64) Scenario {
	number := func(n *int, least int) {
		if *n > 0 {
			*n = max(min(*n, least), int(float64(*n)*f+0.5))
		}
	}
	number(&s.Town.People, 100)
	number(&s.Town.Companies, 1)
	s.Crowds, s.Raids = slices.Clone(s.Crowds), slices.Clone(s.Raids)
	for i := range s.Crowds {
		c := &s.Crowds[i]
		number(&c.People, 1)
		c.Rate *= f
	}
	for i := range s.Raids {
		r := &s.Raids[i]
		number(&r.Attempts, 10)
		if r.Sources > 100 { // few sources are what the story is about
			number(&r.Sources, 2)
		}
		number(&r.Victims, 1)
	}
	return s.derived()
}
