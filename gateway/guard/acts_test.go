package guard_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/guard"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// entries is what the record says of kinds that begin so.
func (g *gate) entries(t *testing.T, kinds ...string) []record.Entry {
	t.Helper()
	if err := g.core.Record.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var found []record.Entry
	if err := g.core.Record.Read(t.Context(), record.Query{Kinds: kinds}, func(e record.Entry) error {
		if e.Err != nil {
			t.Errorf("%v: %v", e.ID(), e.Err)
		}
		found = append(found, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func blocked(value string) policies.Decision {
	return policies.Decision{
		Scope: policies.ScopeAddress, Value: value, Action: rules.Refuse, Mode: rules.Enforce,
		Origin: policies.OriginOperator, By: "test", Reason: "test", Until: time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC),
	}
}

func TestActsAreOnRecord(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	c := g.client(t)
	c.login(alice, "correct-alice")
	for range 3 {
		g.client(t).login(mallory, "wrong")
	}
	d, created, err := g.core.RegisterDecision(t.Context(), blocked("203.0.113.7"))
	if err != nil || !created {
		t.Fatal(created, err)
	}
	if _, err := g.core.LiftDecision(t.Context(), d.ID, "operator:test"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.core.LiftDecision(t.Context(), "no-such-decision", "operator:test"); err == nil {
		t.Fatal("a decision that is not there was lifted")
	}
	ended, err := g.core.EndSessions(t.Context(), alice, "operator:test")
	if err != nil || len(ended) != 1 {
		t.Fatal(ended, err)
	}

	var told []string
	for _, e := range g.entries(t) {
		var body map[string]any
		if err := json.Unmarshal(e.Body, &body); err != nil {
			t.Fatal(err)
		}
		what := e.Kind
		switch e.Kind {
		case "act.session.begin":
			if body["session"] != ended[0].ID || body["account"] != alice || body["source"] != "198.51.100.1" {
				t.Errorf("%s says %v", e.Kind, body)
			}
		case "act.decision.register":
			if d.Entry != e.ID().String() || body["value"] != "203.0.113.7" || body["by"] != "test" {
				t.Errorf("%s says %v, and the decision has %q", e.Kind, body, d.Entry)
			}
		case "login.failure":
			if e.Class != record.Aggregated || e.Count != 3 {
				t.Errorf("%s: %v, %d times, want 3 in one entry", e.Kind, e.Class, e.Count)
			}
		}
		told = append(told, what)
	}
	want := []string{
		"gate.started", "act.session.begin", "act.decision.register", "act.decision.lift", "act.decision.lift", "act.abandoned",
		"act.account.end_sessions", "login.failure",
	}
	if !slices.Equal(told, want) {
		t.Errorf("the record has\n%v, want\n%v", told, want)
	}
}

// Without a record nobody new comes in and operators do nothing; who is in stays
// in, and gets out.
func TestRecordAway(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	stays, leaves := g.client(t), g.client(t)
	stays.login(alice, "correct-alice")
	leaves.login(mallory, "correct-mallory")
	if err := g.core.Record.Close(); err != nil {
		t.Fatal(err)
	}
	comes := g.client(t)
	if got := comes.login(mallory, "correct-mallory"); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || len(comes.cookies) > 0 {
		t.Errorf("a log-in: %d %v, cookies %v, want 503, Retry-After and none", got.status, got.header, comes.cookies)
	}
	if got := comes.login(mallory, "wrong"); got.status != http.StatusUnauthorized {
		t.Errorf("a wrong password: %d, want the backend's 401", got.status)
	}
	stays.wantSecret(alice)
	if _, _, err := g.core.RegisterDecision(t.Context(), blocked("203.0.113.7")); !errors.Is(err, record.ErrUnavailable) {
		t.Errorf("an operator's act: %v, want none without a record", err)
	}
	leaves.get("/logout")
	leaves.wantSecret("")

	g.core.RecordOptional.Store(true)
	if got := comes.login(mallory, "correct-mallory"); got.status != http.StatusOK {
		t.Errorf("a log-in where the record is optional: %d", got.status)
	}
	comes.wantSecret(mallory)
}

// What was announced and not done when the gate stopped is taken back by the next
// start; what was done stands.
func TestStartSettlesActs(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	d, _, err := g.core.RegisterDecision(t.Context(), blocked("203.0.113.7"))
	if err != nil {
		t.Fatal(err)
	}
	lost, err := g.core.Record.Append(t.Context(), record.Draft{Kind: "act.decision.register", Body: map[string]string{"value": "203.0.113.8"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.core.Record.Close(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if g.core, err = guard.Open(t.Context(), g.db, g.keys, settings(t, g.dir, g.keys, g.clock, log)); err != nil {
		t.Fatal(err)
	}
	abandoned := g.entries(t, record.Abandoned)
	if len(abandoned) != 1 || !strings.Contains(string(abandoned[0].Body), lost.String()) {
		t.Errorf("abandoned are %v, want %v and not %s", abandoned, lost, d.Entry)
	}
	if open, err := g.core.Record.Intents(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("open is %v, %v, want none", open, err)
	}
}

// A gate whose record was lost gives ids again that the database knows: they are of
// another life.
func TestStartWithoutItsRecord(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	for range 2 {
		g.client(t).login(alice, "correct-alice")
	}
	if err := g.core.Record.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(g.dir, "record")); err != nil {
		t.Fatal(err)
	}
	var err error
	if g.core, err = guard.Open(t.Context(), g.db, g.keys, settings(t, g.dir, g.keys, g.clock, slog.New(slog.DiscardHandler))); err != nil {
		t.Fatal(err)
	}
	if ended, err := g.core.EndSessions(t.Context(), alice, "operator:test"); err != nil || len(ended) != 2 {
		t.Error(ended, err)
	}
}

// A name that was learned under an old key is known under the new one.
func TestNamesOutliveTheirKey(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	g.client(t).login(alice, "correct-alice")
	before := g.happened()[0].Name.Digest
	if _, err := g.keys.Rotate(storage.Digest, g.clock(), 0); err != nil {
		t.Fatal(err)
	}
	for _, password := range []string{"wrong", "correct-alice", "wrong"} {
		seen := len(g.happened())
		g.client(t).login(alice, password)
		e := g.happened()[seen]
		if e.Account != alice || e.Name.Digest == before || e.Name.Digest.IsZero() {
			t.Errorf("%s: account %q, digest %v, want %q under a new digest", password, e.Account, e.Name.Digest, alice)
		}
	}
}

// Detectors and rules know after a restart what they knew before, each event once.
func TestRememberAndRecall(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	for range 3 {
		g.client(t).login(mallory, "wrong")
	}
	file := filepath.Join(g.dir, "snapshot")
	if err := g.core.Remember(file); err != nil {
		t.Fatal(err)
	}
	probe := g.happened()[0]
	want := g.core.Detectors.Assess(probe)
	fresh := detectors.Default(g.clock())
	if len(want) == 0 || len(fresh.Assess(probe)) >= len(want) && equalSignals(fresh.Assess(probe), want) {
		t.Fatalf("three failures tell nothing: %v", want)
	}
	if err := g.core.Record.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := guard.Open(t.Context(), g.db, g.keys, settings(t, g.dir, g.keys, g.clock, slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	set, _ := shipped()
	again.Rules.Store(set)
	again.Recall(t.Context(), file)
	if got := again.Detectors.Assess(probe); !equalSignals(got, want) {
		t.Errorf("after the restart the detectors say %v, want %v", got, want)
	}
}

// A snapshot that is not whole is not there, or counts as far as its first half
// goes; it is never counted in part.
func TestRecallOfDamagedSnapshots(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	for range 3 {
		g.client(t).login(mallory, "wrong")
	}
	file := filepath.Join(g.dir, "snapshot")
	if err := g.core.Remember(file); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	probe := g.happened()[0]
	full, fresh := g.core.Detectors.Assess(probe), detectors.Default(g.clock()).Assess(probe)
	damaged := [][]byte{{}, whole[:1], whole[:len(whole)/3], whole[:len(whole)-1]}
	for i := 0; i < len(whole); i += len(whole) / 5 {
		flipped := slices.Clone(whole)
		flipped[i] ^= 0x41
		damaged = append(damaged, flipped)
	}
	for i, data := range damaged {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		g.core.Detectors = detectors.Default(g.clock())
		set, _ := shipped()
		g.core.Rules.Store(set)
		g.core.Restore(file)
		if got := g.core.Detectors.Assess(probe); !equalSignals(got, full) && !equalSignals(got, fresh) {
			t.Errorf("damage %d: the detectors say %v, want %v or %v", i, got, full, fresh)
		}
	}
}

func equalSignals(a, b []detectors.Signal) bool {
	return slices.EqualFunc(a, b, func(x, y detectors.Signal) bool { return x.Name == y.Name && x.Value == y.Value })
}

// Rules may be reloaded while what they count is written down.
func TestRememberWhileRulesReload(t *testing.T) {
	g := newGate(t, "hostile", newHostile())
	file := filepath.Join(g.dir, "snapshot")
	events, reloads := make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-events:
				return
			default:
			}
			a := netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
			g.core.Stream.Publish(detectors.Event{
				Time: g.clock(), Kind: detectors.Login, Outcome: detectors.Failure, Name: detectors.Name{Digest: detectors.Digest{byte(i), byte(i >> 8)}},
				Source: detectors.Source{Address: a, Network: netip.PrefixFrom(a, 32)},
			})
		}
	})
	wait.Go(func() {
		defer close(events)
		defer close(reloads)
		for range 3 {
			if err := g.core.Remember(file); err != nil {
				t.Error(err)
			}
		}
	})
	wait.Go(func() {
		for {
			select {
			case <-reloads:
				return
			default:
			}
			set, _ := shipped()
			set.Adopt(g.core.Rules.Load())
			g.core.Rules.Store(set)
		}
	})
	wait.Wait()
	again := detectors.Default(g.clock())
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := again.Restore(f); err != nil {
		t.Error(err)
	}
	set, _ := shipped()
	if _, err := set.Restore(f); err != nil {
		t.Error(err)
	}
}
