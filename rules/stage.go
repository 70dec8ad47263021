package rules

// Asks reports whether some rule is asked at a stage: without one nobody need prepare
// the question.
func (s *Set) Asks(stage Stage) bool { return s.asked[stage] }
