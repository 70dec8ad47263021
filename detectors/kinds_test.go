package detectors_test

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// What is no log-in, and no use of a credential, teaches detectors of log-ins nothing:
// neither do kinds that a later version will have.
func TestOtherKindsAreIgnored(t *testing.T) {
	with, without := detectors.Default(time.Time{}), detectors.Default(time.Time{})
	r := rand.New(rand.NewPCG(1, 2))
	others := []detectors.Event{
		{Kind: detectors.Message, Route: detectors.MessageRoute, Targets: 3},
		{Kind: detectors.Factor},
		{Kind: detectors.Operator, Act: "decision.lift", Actor: "operator:sato"},
		{Kind: detectors.Session, Act: detectors.Begun},
		{Kind: detectors.Session, Act: detectors.Minted},
		{Kind: detectors.Session, Act: detectors.Ended},
		{Kind: "of a later version"},
	}
	for i, e := range namedTraffic(7, monday, 4000) {
		with.Observe(with.Facts(e))
		without.Observe(without.Facts(e))
		other := others[i%len(others)]
		e.Kind, e.Route, e.Act, e.Actor, e.Targets = other.Kind, other.Route, other.Act, other.Actor, other.Targets
		e.Outcome = []detectors.Outcome{detectors.Success, detectors.Failure, detectors.Refused, detectors.Unknown}[r.IntN(4)]
		with.Assess(with.Facts(e))
		with.Observe(with.Facts(e))
	}
	if !bytes.Equal(snap(t, with, ""), snap(t, without, "")) {
		t.Error("detectors learned from events that are no log-ins")
	}
}
