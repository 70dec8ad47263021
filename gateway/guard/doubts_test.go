package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
)

// hang gives g a record whose disk hangs from now on, until the function that it
// returns is called.
func (g *gate) hang(t *testing.T) (goOn func()) {
	t.Helper()
	if err := g.core.Record.Close(); err != nil {
		t.Fatal(err)
	}
	var disk sync.RWMutex
	key := g.keys.Current(storage.Seal)
	paper, err := record.Open(filepath.Join(g.dir, "record"), record.Config{Node: "test", Reserve: -1, Now: g.clock, Keys: func() []record.Key {
		disk.RLock()
		defer disk.RUnlock()
		return []record.Key{{ID: key.ID, Secret: key.Bytes}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	g.core.Record = paper
	g.core.SetPatience(time.Millisecond)
	disk.Lock()
	goOn = sync.OnceFunc(disk.Unlock)
	t.Cleanup(func() {
		goOn()
		paper.Close()
	})
	return goOn
}

// abandoned waits until the record takes n acts back, and returns why, by entry.
func (g *gate) abandoned(t *testing.T, n int) map[string]string {
	t.Helper()
	for {
		why := make(map[string]string)
		for _, e := range g.entries(t, record.Abandoned) {
			var body struct{ Entry, Why string }
			if err := json.Unmarshal(e.Body, &body); err != nil {
				t.Fatal(err)
			}
			why[body.Entry] = body.Why
		}
		if len(why) >= n {
			return why
		}
		runtime.Gosched()
	}
}

// A record that does not answer keeps nobody waiting, and what it writes when
// nobody waits any more does not stand as done.
func TestRecordHangs(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	leaves, comes := g.client(t), g.client(t)
	leaves.login(alice, "correct-alice")
	goOn := g.hang(t)
	leaves.get("/logout")
	leaves.wantSecret("")
	if got := comes.login(mallory, "correct-mallory"); got.status != http.StatusServiceUnavailable {
		t.Errorf("a log-in: %d, want 503", got.status)
	}
	if _, _, err := g.core.RegisterDecision(t.Context(), blocked("203.0.113.7")); !errors.Is(err, record.ErrUnavailable) {
		t.Errorf("an operator's act: %v, want that the record is away", err)
	}
	g.core.RecordOptional.Store(true)
	if got := comes.login(mallory, "correct-mallory"); got.status != http.StatusOK {
		t.Errorf("a log-in where the record is optional: %d", got.status)
	}
	comes.wantSecret(mallory)
	goOn()
	for entry, why := range g.abandoned(t, 4) {
		if !strings.Contains(why, "nobody waited") {
			t.Errorf("%s is abandoned because %q", entry, why)
		}
	}
	if err := g.core.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if open, err := g.core.Record.Intents(t.Context()); err != nil || len(open) > 0 {
		t.Errorf("open is %v, %v", open, err)
	}
}

// Of acts in doubt, those that happened stand and are in force, and those that did
// not are taken back; one that is under way meanwhile is left alone.
func TestActsInDoubt(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	store, err := policies.NewSQLStore(g.db.SQL(), g.db.Dialect())
	if err != nil {
		t.Fatal(err)
	}
	// What another registers is in the database, and not known to the gate.
	other, err := policies.OpenDecisions(t.Context(), store, g.clock())
	if err != nil {
		t.Fatal(err)
	}
	var happened, failed, slow string
	err = g.core.Act(t.Context(), func(ctx context.Context, entry string, at time.Time) error {
		happened = entry
		d := blocked("203.0.113.7")
		d.Entry = entry
		if _, err := other.Register(ctx, d, at); err != nil {
			t.Error(err)
		}
		return policies.ErrUncertain
	})
	if !errors.Is(err, policies.ErrUncertain) {
		t.Error(err)
	}
	if err := g.core.Act(t.Context(), func(_ context.Context, entry string, _ time.Time) error {
		failed = entry
		return policies.ErrUncertain
	}); !errors.Is(err, policies.ErrUncertain) {
		t.Error(err)
	}
	begun, goOn := make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := g.core.Act(context.WithoutCancel(t.Context()), func(_ context.Context, entry string, _ time.Time) error {
			slow = entry
			close(begun)
			<-goOn
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-begun
	g.advance(time.Hour)
	for range 2 {
		if err := g.core.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if why := g.abandoned(t, 1); len(why) != 1 || why[failed] == "" {
		t.Errorf("abandoned are %v, want %s; %s happened, %s is under way", why, failed, happened, slow)
	}
	if d, _ := g.core.Decisions.Match(policies.Subject{Address: netip.MustParseAddr("203.0.113.7")}, g.clock()); d.Entry != happened {
		t.Errorf("in force is %v, want what happened in doubt", d)
	}
	close(goOn)
	wait.Wait()
}

// What an act changed is remembered by the time of its entry, however long ago its
// request began: else it might be forgotten before it is settled.
func TestActsCarryTheTimeOfTheirEntry(t *testing.T) {
	backend := newHostile()
	var g *gate
	g = newGate(t, "hostile", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" {
			g.advance(time.Hour)
		}
		backend.ServeHTTP(w, r)
	}))
	g.client(t).login(alice, "correct-alice")
	entry := g.entries(t, "act.session.begin")[0]
	var at int64
	if err := g.db.SQL().QueryRowContext(t.Context(), `SELECT at FROM auth_acts WHERE entry = ?`, entry.ID().String()).Scan(&at); err != nil {
		t.Fatal(err)
	}
	if carried := time.UnixMicro(at); carried.Before(entry.Time) {
		t.Errorf("the change carries %v, its entry %v", carried, entry.Time)
	}
}
