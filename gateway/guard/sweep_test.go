package guard_test

import (
	"testing"
)

// A database that can be read and not written is noticed, and so is its end.
func TestUnwritable(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	if g.core.Sweep(t.Context()); g.core.Unwritable() {
		t.Fatal("the database cannot be written")
	}
	db := g.db.SQL()
	db.SetMaxOpenConns(1)
	for _, step := range []struct {
		pragma string
		want   bool
	}{{"PRAGMA query_only = 1", true}, {"PRAGMA query_only = 0", false}} {
		if _, err := db.ExecContext(t.Context(), step.pragma); err != nil {
			t.Fatal(err)
		}
		if g.core.Sweep(t.Context()); g.core.Unwritable() != step.want {
			t.Errorf("after %s: unwritable is %v", step.pragma, g.core.Unwritable())
		}
	}
}
