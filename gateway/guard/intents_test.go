package guard

import (
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/record"
)

// What is not settled bounds what is known, by the sequence and by the clock, also
// when the clock stepped back meanwhile; and it is bounded itself.
func TestIntents(t *testing.T) {
	var s intents
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	if last, until := s.known(7, noon); last != 7 || !until.Equal(noon) {
		t.Errorf("with nothing open all is known up to %d, %v", last, until)
	}
	first := s.begin(7, noon)
	stepped := s.begin(9, noon.Add(-time.Hour))
	if last, until := s.known(20, noon.Add(-time.Hour)); last != 7 || !until.Equal(stepped.at) {
		t.Errorf("all is known up to %d, %v, want 7 and the earlier time", last, until)
	}
	s.announced(first, record.ID{Node: "a", Sequence: 8})
	s.doubt(first)
	if doubts := s.doubts(); len(doubts) != 1 || doubts[0] != first {
		t.Errorf("in doubt are %v, want the first alone: the second is under way", doubts)
	}
	s.end(first, stepped)
	if last, _ := s.known(20, noon); last != 20 {
		t.Errorf("all is known up to %d, want 20", last)
	}
	for range openMax {
		if s.begin(1, noon) == nil {
			t.Fatal("there is no room before the bound")
		}
	}
	if s.begin(1, noon) != nil {
		t.Error("there is room beyond the bound")
	}
}
