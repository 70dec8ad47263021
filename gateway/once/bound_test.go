package once

import (
	"errors"
	"strconv"
	"testing"
	"time"
)

func TestFullRefuses(t *testing.T) {
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	m := NewMemory(func() time.Time { return at })
	for i := range maxSignatures {
		if _, err := m.Seen(t.Context(), strconv.Itoa(i), at.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Seen(t.Context(), "more", at.Add(time.Minute)); !errors.Is(err, ErrFull) {
		t.Errorf("error = %v, want that it is full", err)
	}
	if seen, err := m.Seen(t.Context(), "0", at.Add(time.Minute)); !seen || err != nil {
		t.Errorf("= %v, %v: the first was forgotten", seen, err)
	}
	for i := range maxAnswers {
		if _, _, err := m.Begin(t.Context(), Act{"alice", strconv.Itoa(i)}, Request{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := m.Begin(t.Context(), Act{"alice", "more"}, Request{}); !errors.Is(err, ErrFull) {
		t.Errorf("error = %v, want that it is full", err)
	}
	if _, _, err := m.Begin(t.Context(), Act{"bob", "more"}, Request{}); err != nil {
		t.Errorf("one operator keeps another out: %v", err)
	}
	at = at.Add(7 * time.Minute)
	if _, err := m.Seen(t.Context(), "more", at.Add(time.Minute)); err != nil {
		t.Errorf("what is over is kept: %v", err)
	}
	if _, _, err := m.Begin(t.Context(), Act{"alice", "more"}, Request{}); err != nil {
		t.Errorf("what was cut off is kept: %v", err)
	}
	if len(m.signatures) != 1 || m.perName["alice"] != 1 {
		t.Errorf("%d signatures and %d acts are kept, want 1 and 1", len(m.signatures), m.perName["alice"])
	}
}
