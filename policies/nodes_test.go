package policies_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// tellAll wants one notice of everything.
func tellAll(c policies.Change, d policies.Decision) []policies.Notice {
	return []policies.Notice{{Channel: "webhook", To: "soc", Template: "decision." + string(c), Values: map[string]string{"value": d.Value}}}
}

func openTelling(t testing.TB, s policies.DecisionStore) *policies.Decisions {
	t.Helper()
	d, err := policies.OpenDecisions(t.Context(), s, noon, policies.WithNotices(tellAll))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// intended is what the outbox of a place was told of, as "template value", sorted.
func intended(t testing.TB, p place) []string {
	t.Helper()
	var out []string
	for _, n := range listAll(t, p.outbox()) {
		out = append(out, n.Template+" "+n.Values["value"])
	}
	slices.Sort(out)
	return out
}

func listAll(t interface {
	Context() context.Context
	Fatal(...any)
}, o *policies.Outbox) (all []policies.Notice) {
	for cursor := ""; ; {
		page, next, err := o.List(t.Context(), policies.NoticeFilter{}, cursor, 200)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page...)
		if cursor = next; next == "" {
			return all
		}
	}
}

// TestNodesRace has nodes conclude the same at once: one decision comes into being,
// one of them is told that it made it, and there is one notice.
func TestNodesRace(t *testing.T) {
	const nodes, subjects = 3, 20
	for _, name := range places {
		t.Run(name, func(t *testing.T) {
			p := openPlace(t, name)
			var mu sync.Mutex
			changes := map[policies.Change]int{}
			ids := map[string]string{}
			start := make(chan struct{})
			var wg sync.WaitGroup
			for i := range nodes {
				store := p.store
				if name == "postgres" { // a node has connections of its own
					store = placeOn(t, openDB(t, "pgx", migrated.url+"&default_transaction_isolation=serializable"), name).store
				}
				d := openTelling(t, store)
				wg.Go(func() {
					<-start
					for s := range subjects {
						n := ruleDecision("address", fmt.Sprintf("203.0.113.%d", s))
						n.Window, n.Reason, n.Entry = noon, "30 names in order", fmt.Sprintf("node%d/%d", i, s)
						r, err := d.Register(t.Context(), n, noon)
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						changes[r.Change]++
						if was := ids[n.Value]; was != "" && was != r.ID {
							t.Errorf("%s: two decisions, %s and %s", n.Value, was, r.ID)
						}
						ids[n.Value] = r.ID
						mu.Unlock()
						if got, _ := d.Match(at(n.Value), noon); got.ID != r.ID {
							t.Errorf("%s: node %d matches %q, want %q", n.Value, i, got.ID, r.ID)
						}
					}
				})
			}
			close(start)
			wg.Wait()
			want := map[policies.Change]int{policies.Registered: subjects, policies.Unchanged: subjects * (nodes - 1)}
			if diff := cmp.Diff(want, changes); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if got := intended(t, p); len(got) != subjects {
				t.Errorf("got %d notices, want %d", len(got), subjects)
			}
		})
	}
}

func TestNotices(t *testing.T) {
	for _, sc := range []struct {
		name string
		run  func(*testing.T, place)
	}{
		{"one for each registration, lift and expiry", func(t *testing.T, p place) {
			a, b := openTelling(t, p.store), openTelling(t, p.store)
			n := operatorDecision("asn", "64500")
			r := register(t, a, n, noon)
			for i := range 2 { // two that extend, and one that changes nothing
				n.Until = noon.Add(time.Duration(2+i) * time.Hour)
				register(t, b, n, noon.Add(time.Minute))
			}
			register(t, b, n, noon.Add(2*time.Minute))
			if _, err := a.Lift(t.Context(), r.ID, policies.Act{By: "sato"}, noon.Add(3*time.Minute)); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Lift(t.Context(), r.ID, policies.Act{By: "sato"}, noon.Add(3*time.Minute)); err != nil {
				t.Fatal(err)
			}
			byRule := ruleDecision("asn", "64501")
			register(t, a, byRule, noon)
			byRule.Until = noon.Add(2 * time.Hour)
			register(t, b, byRule, noon) // a rule's extension is not told
			register(t, a, operatorDecision("asn", "64502"), noon)
			for _, now := range []time.Time{noon.Add(2 * time.Hour), noon.Add(3 * time.Hour), noon.Add(400 * 24 * time.Hour)} {
				for _, d := range []*policies.Decisions{a, b} {
					if _, err := d.Sweep(t.Context(), now); err != nil {
						t.Fatal(err)
					}
				}
			}
			want := []string{
				"decision.expired 64501", "decision.expired 64502",
				"decision.extended 64500", "decision.extended 64500", "decision.lifted 64500",
				"decision.registered 64500", "decision.registered 64501", "decision.registered 64502",
			}
			if diff := cmp.Diff(want, intended(t, p)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if page, _, err := a.List(t.Context(), policies.DecisionQuery{}, noon); err != nil || len(page) != 0 {
				t.Errorf("%d decisions were not purged, %v", len(page), err)
			}
		}},
		{"what is undone is not told", func(t *testing.T, p place) {
			bad := false
			d, err := policies.OpenDecisions(t.Context(), p.store, noon, policies.WithNotices(func(c policies.Change, d policies.Decision) []policies.Notice {
				n := tellAll(c, d)
				if bad && d.Value == "64502" {
					n[0].Channel = ""
				}
				return n
			}))
			if err != nil {
				t.Fatal(err)
			}
			bad = true
			both := []policies.Decision{operatorDecision("asn", "64501"), operatorDecision("asn", "64502")}
			both[0].Entry, both[1].Entry = "one/1", "one/2"
			if _, err := d.RegisterAll(t.Context(), both, noon); err == nil {
				t.Error("registered with a notice that cannot be kept")
			}
			if got := intended(t, p); len(got) != 0 {
				t.Errorf("got %v", got)
			}
			if acted, err := d.Acted(t.Context(), []string{"one/1", "one/2"}); err != nil || len(acted) != 0 {
				t.Errorf("acted on %v, %v", acted, err)
			}
			bad = false
			if _, err := d.RegisterAll(t.Context(), both, noon); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"decision.registered 64501", "decision.registered 64502"}, intended(t, p)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}},
		{"a full outbox stops no decision", func(t *testing.T, p place) {
			o := p.outbox()
			if err := o.Crowd(t.Context(), policies.MaxOpen); err != nil {
				t.Fatal(err)
			}
			d := openTelling(t, p.store)
			var many []policies.Decision
			for i := range 300 {
				many = append(many, operatorDecision("asn", fmt.Sprint(64500+i)))
			}
			if _, err := d.RegisterAll(t.Context(), many, noon); err != nil {
				t.Fatal(err)
			}
			got := listAll(t, o)
			if len(got) != 1 || got[0].Template != policies.OverflowTemplate || got[0].Values["count"] != "300" {
				t.Errorf("got %+v", got)
			}
		}},
		{"acts are marked with what they did", func(t *testing.T, p place) {
			d := open(t, p.store, noon)
			n := operatorDecision("asn", "64500")
			n.Entry = "node-1/7"
			r := register(t, d, n, noon)
			n.Entry, n.Until = "node-2/1", noon.Add(2*time.Hour)
			extended := register(t, d, n, noon)
			n.Entry = "node-1/8"
			unchanged := register(t, d, n, noon)
			n.Entry, n.Until = "", noon.Add(3*time.Hour)
			without := register(t, d, n, noon)
			got, _ := open(t, p.store, noon).Match(policies.Subject{ASN: 64500}, noon)
			for what, e := range map[string][2]string{
				"registered": {r.Entry, "node-1/7"}, "extended": {extended.Entry, "node-2/1"}, "unchanged": {unchanged.Entry, "node-2/1"},
				"extended without an entry": {without.Entry, "node-2/1"}, "after a restart": {got.Entry, "node-2/1"},
			} {
				if e[0] != e[1] {
					t.Errorf("%s: entry %q, want %q", what, e[0], e[1])
				}
			}
			l, err := d.Lift(t.Context(), r.ID, policies.Act{By: "sato", Entry: "node-1/9"}, noon)
			if err != nil || l.Entry != "node-1/9" {
				t.Errorf("lifted: %q, %v", l.Entry, err)
			}
			again, err := d.Lift(t.Context(), r.ID, policies.Act{By: "sato", Entry: "node-1/10"}, noon.Add(time.Minute))
			if err != nil || again.Entry != "node-1/9" {
				t.Errorf("lifted again: %q, %v", again.Entry, err)
			}
			if _, err := d.Lift(t.Context(), strings.Repeat("0", 26), policies.Act{By: "sato", Entry: "node-1/11"}, noon); !errors.Is(err, policies.ErrNotFound) {
				t.Errorf("lifting nothing: %v", err)
			}
			all := []string{"node-1/7", "node-1/8", "node-1/9", "node-1/10", "node-1/11", "node-2/1", "node-1/70", "\x00"}
			acted := func(want ...string) {
				t.Helper()
				got, err := d.Acted(t.Context(), all)
				if err != nil {
					t.Fatal(err)
				}
				wanted := map[string]bool{}
				for _, w := range want {
					wanted[w] = true
				}
				if diff := cmp.Diff(wanted, got); diff != "" {
					t.Errorf("acted (-want +got):\n%s", diff)
				}
			}
			acted("node-1/7", "node-1/8", "node-1/9", "node-1/10", "node-2/1")
			if err := d.ForgetActs(t.Context(), "node-1", noon.Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			acted("node-1/10", "node-2/1")
			if err := d.ForgetActs(t.Context(), "node", noon.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			acted("node-1/10", "node-2/1")
			for _, node := range []string{"", "a/b", "\x00"} {
				if err := d.ForgetActs(t.Context(), node, noon); err == nil {
					t.Errorf("forgot acts of node %q", node)
				}
			}
		}},
		{"texts that no database takes are faults or nothing", func(t *testing.T, p place) {
			d := open(t, p.store, noon)
			for _, id := range []string{"\x00", "\xff", strings.Repeat("0", 25) + "\x00"} {
				if _, err := d.Get(t.Context(), id, noon); !errors.Is(err, policies.ErrNotFound) {
					t.Errorf("Get(%q): %v", id, err)
				}
				if _, err := d.Lift(t.Context(), id, policies.Act{By: "sato"}, noon); !errors.Is(err, policies.ErrNotFound) {
					t.Errorf("Lift(%q): %v", id, err)
				}
				for _, q := range []policies.DecisionQuery{{By: id}, {Rule: rules.ID(id)}, {Origin: policies.Origin(id)}, {Scope: "account", Value: id}} {
					var faults policies.FieldErrors
					if _, _, err := d.List(t.Context(), q, noon); !errors.As(err, &faults) && (strings.Contains(id, "\x00") || !utf8.ValidString(id)) {
						t.Errorf("%+v: %v", q, err)
					}
				}
			}
		}},
	} {
		for _, name := range places {
			t.Run(sc.name+"/"+name, func(t *testing.T) { sc.run(t, openPlace(t, name)) })
		}
	}
}

// TestNothingOverWritesNothing: nodes sweep and register again and again, and a
// round that finds nothing to do leaves no trace in the store.
func TestNothingOverWritesNothing(t *testing.T) {
	for _, name := range places {
		t.Run(name, func(t *testing.T) {
			p := openPlace(t, name)
			d := openTelling(t, p.store)
			register(t, d, operatorDecision("asn", "64500"), noon)
			before, err := p.store.Standing(t.Context(), noon, func(policies.Stored) {})
			if err != nil {
				t.Fatal(err)
			}
			s := &countingStore{DecisionStore: p.store}
			other := open(t, s, noon)
			for i := range 20 {
				if _, err := other.Sweep(t.Context(), noon.Add(time.Duration(i)*time.Second)); err != nil {
					t.Fatal(err)
				}
			}
			if s.updates != 0 {
				t.Errorf("20 sweeps began %d transactions, want 0", s.updates)
			}
			register(t, other, operatorDecision("asn", "64500"), noon)
			after, err := p.store.Standing(t.Context(), noon, func(policies.Stored) {})
			if err != nil || after != before {
				t.Errorf("the revision went from %d to %d, %v", before, after, err)
			}
		})
	}
}

// TestUncertainCommit breaks the connection when the server has the COMMIT and its
// answer is on its way, and before the COMMIT arrives.
func TestUncertainCommit(t *testing.T) {
	direct := openPostgres(t)
	for _, tc := range []struct {
		name    string
		deliver bool // the COMMIT
	}{{"the answer is lost", true}, {"the COMMIT is lost", false}} {
		t.Run(tc.name, func(t *testing.T) {
			p := placeOn(t, direct, "postgres")
			p.clear(t)
			wire := cutter(t, migrated.url, tc.deliver)
			d := openTelling(t, placeOn(t, openDB(t, "pgx", wire.url), "postgres").store)
			wire.armed.Store(true)
			n := operatorDecision("asn", "64500")
			n.Entry = "one/1"
			_, err := d.Register(t.Context(), n, noon)
			if !errors.Is(err, policies.ErrUncertain) {
				t.Fatalf("got %v, want ErrUncertain", err)
			}
			<-wire.cut
			who := policies.Subject{ASN: 64500}
			if got, _ := d.Match(who, noon); got.ID != "" {
				t.Error("visible before it is known to be durable")
			}
			// A server that got the COMMIT may still be at it: another change waits for it.
			other := open(t, p.store, noon)
			register(t, other, operatorDecision("asn", "64501"), noon)
			if err := d.Reconcile(t.Context(), noon); err != nil {
				t.Fatal(err)
			}
			if got, _ := d.Match(who, noon); (got.ID != "") != tc.deliver {
				t.Errorf("after reconciling: %q, want it there: %v", got.ID, tc.deliver)
			}
			acted, err := d.Acted(t.Context(), []string{"one/1"})
			if err != nil || acted["one/1"] != tc.deliver {
				t.Errorf("acted: %v, %v, want %v", acted, err, tc.deliver)
			}
			if got := len(intended(t, p)); (got == 1) != tc.deliver {
				t.Errorf("%d notices", got)
			}
			// Doing it again is safe.
			r, err := d.Register(t.Context(), n, noon)
			if err != nil || (r.Change == policies.Unchanged) != tc.deliver {
				t.Errorf("again: %q, %v", r.Change, err)
			}
			if got := intended(t, p); len(got) != 1 {
				t.Errorf("again: notices %v, want one", got)
			}
		})
	}
	t.Run("a caller that leaves before it is none", func(t *testing.T) {
		p := placeOn(t, direct, "postgres")
		p.clear(t)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := p.store.Update(ctx, func(tx policies.DecisionTx) error {
			defer cancel()
			return tx.Act("one/1", noon)
		})
		if err == nil || errors.Is(err, policies.ErrUncertain) {
			t.Errorf("got %v, want an error that is certain", err)
		}
		if acted, err := p.store.Acted(t.Context(), []string{"one/1"}); err != nil || len(acted) != 0 {
			t.Errorf("got %v, %v", acted, err)
		}
	})
}

// TestActsUnderWay asks what happened while the server is still at a commit of a
// process that is gone.
func TestActsUnderWay(t *testing.T) {
	p, ctx := placeOn(t, openPostgres(t), "postgres"), t.Context()
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, statement := range []string{`UPDATE decisions_revision SET revision = revision + 1`, `INSERT INTO decision_acts (entry, at) VALUES ('one/1', 1)`} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	type answer struct {
		acted []string
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		acted, err := p.store.Acted(ctx, []string{"one/1"})
		answers <- answer{acted, err}
	}()
	for waits := false; !waits; {
		select {
		case a := <-answers:
			t.Fatalf("answered before the commit was over: %v, %v", a.acted, a.err)
		default:
		}
		if err := p.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if a := <-answers; a.err != nil || len(a.acted) != 1 {
		t.Errorf("after the commit: %v, %v", a.acted, a.err)
	}
}

// wire is a way to a server that can be cut at a COMMIT.
type wire struct {
	url   string
	armed atomic.Bool
	cut   chan struct{} // closed when it was
}

func cutter(t *testing.T, target string, deliver bool) *wire {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := &wire{cut: make(chan struct{})}
	server := u.Host
	u.Host = l.Addr().String()
	w.url = u.String()
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				return
			}
			var dead atomic.Bool
			go func() {
				defer client.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := upstream.Read(buf)
					if n > 0 && !dead.Load() {
						if _, err := client.Write(buf[:n]); err != nil {
							return
						}
					}
					if err != nil || dead.Load() {
						return
					}
				}
			}()
			go func() {
				defer upstream.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := client.Read(buf)
					if err != nil {
						return
					}
					if bytes.Contains(bytes.ToLower(buf[:n]), []byte("commit\x00")) && w.armed.CompareAndSwap(true, false) {
						dead.Store(true)
						if deliver {
							// The other direction reads the answer, drops it and closes.
							if _, err := upstream.Write(buf[:n]); err != nil {
								return
							}
							_, _ = io.Copy(io.Discard, client)
						} else {
							client.Close()
						}
						close(w.cut)
						return
					}
					if _, err := upstream.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return w
}

// TestNoticesModel registers, lifts and sweeps on two nodes in any order and counts
// what must have been told, once each.
func TestNoticesModel(t *testing.T) {
	for _, name := range places {
		t.Run(name, func(t *testing.T) {
			fewerChecks(t, name, "10")
			p := openPlace(t, name)
			rapid.Check(t, func(t *rapid.T) {
				p.clear(t)
				now := noon
				var nodes []*policies.Decisions
				for range 2 {
					d, err := policies.OpenDecisions(t.Context(), p.store, now, policies.WithNotices(tellAll))
					if err != nil {
						t.Fatal(err)
					}
					nodes = append(nodes, d)
				}
				node := func() *policies.Decisions { return nodes[rapid.IntRange(0, 1).Draw(t, "node")] }
				want := map[string]int{}
				open := map[string]policies.Decision{} // neither lifted nor told as expired
				t.Repeat(map[string]func(*rapid.T){
					"register": func(t *rapid.T) {
						n := operatorDecision("asn", fmt.Sprint(rapid.IntRange(64500, 64502).Draw(t, "asn")))
						n.Until = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "minutes")) * time.Minute)
						if rapid.Bool().Draw(t, "rule") {
							n.Origin, n.By, n.Rule = policies.OriginRule, "a.rule", "a.rule"
						}
						on := node()
						if err := on.Reconcile(t.Context(), now); err != nil { // a rule is content with what its node still has
							t.Fatal(err)
						}
						r, err := on.Register(t.Context(), n, now)
						if errors.Is(err, policies.ErrHeldOff) {
							return
						}
						if err != nil {
							t.Fatal(err)
						}
						was, known := open[r.ID]
						change := policies.Registered
						switch {
						case known && r.Until.After(was.Until):
							change = policies.Extended
						case known:
							change = policies.Unchanged
						}
						if r.Change != change {
							t.Fatalf("got %q, want %q", r.Change, change)
						}
						open[r.ID] = r.Decision
						if change == policies.Registered || change == policies.Extended && n.Origin == policies.OriginOperator {
							want["decision."+string(change)]++
						}
					},
					"lift": func(t *rapid.T) {
						for id, d := range open {
							if d.Live(now) {
								if _, err := node().Lift(t.Context(), id, policies.Act{By: "sato"}, now); err != nil {
									t.Fatal(err)
								}
								delete(open, id)
								want["decision.lifted"]++
								return
							}
						}
						t.Skip("nothing is live")
					},
					"sweep": func(t *rapid.T) {
						over, err := node().Sweep(t.Context(), now)
						if err != nil {
							t.Fatal(err)
						}
						for id, d := range open {
							if !d.Live(now) {
								if !slices.ContainsFunc(over, func(o policies.Decision) bool { return o.ID == id }) {
									t.Fatalf("%s is over and was not told", id)
								}
								delete(open, id)
								want["decision.expired"]++
							}
						}
					},
					"reconcile": func(t *rapid.T) {
						if err := node().Reconcile(t.Context(), now); err != nil {
							t.Fatal(err)
						}
					},
					"wait": func(t *rapid.T) {
						now = now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "minutes")) * time.Minute)
					},
					"": func(*rapid.T) {},
				})
				got := map[string]int{}
				for _, n := range listAll(t, p.outbox()) {
					got[n.Template]++
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("notices (-want +got):\n%s", diff)
				}
			})
		})
	}
}
