package rules

import (
	"slices"

	"github.com/kidoban/kidoban/detectors"
)

// Asks reports whether some rule is asked at a stage: without one nobody need prepare
// the question.
func (s *Set) Asks(stage Stage) bool { return slices.Contains(s.asked, stage) }

// about reports whether rules are asked about events of a kind at s, and whether that is
// before they are counted. An operator's act is a request, and was done by then.
func (s Stage) about(k detectors.Kind) (ok, before bool) {
	switch k {
	case detectors.Operator:
		return s == Request, false
	case detectors.Request:
		return s == Request, true
	case detectors.Message:
		return s == Message, true
	case detectors.Factor:
		return s == Factor, false
	case detectors.Session:
		return s == Session, false
	case detectors.Login:
		return s == LoginBefore || s == LoginAfter, s == LoginBefore
	case detectors.Door:
		return s == LoginAfter, false
	}
	return false, false
}
