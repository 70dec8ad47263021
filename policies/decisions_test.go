package policies_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

func openSQLStore(t testing.TB) *policies.SQLStore {
	t.Helper()
	s, err := policies.NewSQLStore(openSQLite(t), "sqlite")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t testing.TB, store policies.DecisionStore, now time.Time) *policies.Decisions {
	t.Helper()
	d, err := policies.OpenDecisions(t.Context(), store, now)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func openMemory(t testing.TB) *policies.Decisions { return open(t, policies.NewMemoryStore(), noon) }

func ruleDecision(scope policies.Scope, value string) policies.Decision {
	return policies.Decision{Scope: scope, Value: value, Action: rules.StepUp, Origin: policies.OriginRule, Rule: "stuffing.sequential", Until: noon.Add(time.Hour)}
}

func register(t testing.TB, d *policies.Decisions, n policies.Decision, now time.Time) policies.Decision {
	t.Helper()
	out, err := d.Register(t.Context(), n, now)
	if err != nil {
		t.Fatalf("registering %s %s: %v", n.Scope, n.Value, err)
	}
	return out.Decision
}

func at(address string) policies.Subject {
	return policies.Subject{Address: netip.MustParseAddr(address)}
}

// TestStores is what every store must do, seen through the live set.
func TestStores(t *testing.T) {
	for _, sc := range []struct {
		name string
		run  func(*testing.T, policies.DecisionStore)
	}{
		{"registered is visible until its end, and not at it", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			r := register(t, d, operatorDecision("address", "203.0.113.7"), noon)
			if got, _ := d.Match(at("203.0.113.7"), noon.Add(time.Hour-time.Microsecond)); got.ID != r.ID {
				t.Errorf("just before the end: got %q, want %q", got.ID, r.ID)
			}
			if got, _ := d.Match(at("203.0.113.7"), noon.Add(time.Hour)); got.ID != "" {
				t.Errorf("at the end: got %q, want none", got.ID)
			}
			if got, _ := d.Match(at("203.0.113.8"), noon); got.ID != "" {
				t.Errorf("the neighbour: got %q, want none", got.ID)
			}
		}},
		{"everything survives a restart", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			n := ruleDecision("network", "203.0.113.0/24")
			n.Incident, n.Reason, n.Window, n.Mode = "INC-7", "why", noon, rules.Shadow
			want := register(t, d, n, noon.Add(1234567*time.Nanosecond))
			_, got := open(t, s, noon).Match(at("203.0.113.9"), noon)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-registered +matched):\n%s", diff)
			}
			stored, err := open(t, s, noon).Get(t.Context(), want.ID, noon)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, stored); diff != "" {
				t.Errorf("(-registered +stored):\n%s", diff)
			}
		}},
		{"registering again extends and never shortens", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			first := register(t, d, operatorDecision("address", "203.0.113.7"), noon)
			longer := operatorDecision("address", "203.0.113.7")
			longer.Until = noon.Add(2 * time.Hour)
			second := register(t, d, longer, noon.Add(time.Minute))
			third := register(t, d, operatorDecision("address", "203.0.113.7"), noon.Add(2*time.Minute))
			for _, got := range []policies.Decision{second, third} {
				if got.ID != first.ID || !got.Until.Equal(noon.Add(2*time.Hour)) || !got.Created.Equal(first.Created) {
					t.Errorf("got %+v, want %s until two hours past", got, first.ID)
				}
			}
			if got, _ := d.Match(at("203.0.113.7"), noon.Add(90*time.Minute)); got.ID != first.ID {
				t.Errorf("after the first end: got %q, want %q", got.ID, first.ID)
			}
			if over, err := d.Sweep(t.Context(), noon.Add(time.Hour)); err != nil || len(over) != 0 {
				t.Errorf("the first end was swept: %v, %v", over, err)
			}
			if got, _ := open(t, s, noon).Match(at("203.0.113.7"), noon.Add(90*time.Minute)); got.ID != first.ID {
				t.Errorf("after a restart: got %q, want %q", got.ID, first.ID)
			}
		}},
		{"another maker, action or mode is another decision", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			ids := map[string]bool{}
			for _, change := range []func(*policies.Decision){
				func(*policies.Decision) {},
				func(n *policies.Decision) { n.By = "suzuki" },
				func(n *policies.Decision) { n.Action = rules.Delay },
				func(n *policies.Decision) { n.Mode = rules.Shadow },
				func(n *policies.Decision) { n.Origin = policies.OriginPlaybook },
				func(n *policies.Decision) { n.Rule = "cause" },
				func(n *policies.Decision) { n.Scope, n.Value = "network", "203.0.113.7/32" },
			} {
				n := operatorDecision("address", "203.0.113.7")
				change(&n)
				ids[register(t, d, n, noon).ID] = true
			}
			if len(ids) != 7 {
				t.Errorf("got %d decisions, want 7", len(ids))
			}
		}},
		{"lifting ends it at once and holds its rule off", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			n := ruleDecision("network", "203.0.113.0/24")
			n.Until = noon.Add(5 * time.Hour)
			r := register(t, d, n, noon)
			l, err := d.Lift(t.Context(), r.ID, policies.Act{By: "sato"}, noon.Add(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			if l.LiftedBy != "sato" || !l.Lifted.Equal(noon.Add(time.Minute)) || !l.HoldOff.Equal(n.Until) {
				t.Errorf("got %+v", l)
			}
			again, err := d.Lift(t.Context(), r.ID, policies.Act{By: "suzuki"}, noon.Add(2*time.Minute))
			if diff := cmp.Diff(l, again); err != nil || diff != "" {
				t.Errorf("lifting twice: %v (-first +second):\n%s", err, diff)
			}
			for name, d := range map[string]*policies.Decisions{"here": d, "after a restart": open(t, s, noon.Add(time.Minute))} {
				if got, _ := d.Match(at("203.0.113.9"), noon.Add(time.Minute)); got.ID != "" {
					t.Errorf("%s: got %q, want none", name, got.ID)
				}
				_, err := d.Register(t.Context(), n, noon.Add(time.Hour))
				var held *policies.HeldOffError
				if !errors.As(err, &held) || !errors.Is(err, policies.ErrHeldOff) || !held.Until.Equal(n.Until) {
					t.Errorf("%s: got %v, want held off until %v", name, err, n.Until)
				}
			}
			register(t, d, operatorDecision("network", "203.0.113.0/24"), noon.Add(2*time.Minute))
			other := ruleDecision("network", "203.0.113.0/24")
			other.Rule = "another"
			register(t, d, other, noon.Add(2*time.Minute))
			n.Until = noon.Add(9 * time.Hour)
			register(t, d, n, noon.Add(5*time.Hour))
		}},
		{"a lagging node is held off before it knows of the lifting", func(t *testing.T, s policies.DecisionStore) {
			a, b := open(t, s, noon), open(t, s, noon)
			r := register(t, a, ruleDecision("asn", "64500"), noon)
			if _, err := a.Lift(t.Context(), r.ID, policies.Act{By: "sato"}, noon); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Register(t.Context(), ruleDecision("asn", "64500"), noon); !errors.Is(err, policies.ErrHeldOff) {
				t.Errorf("got %v, want held off", err)
			}
		}},
		{"hold-offs last an hour at least and a day at most", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			for i, tc := range []struct{ length, want time.Duration }{{time.Minute, time.Hour}, {3 * time.Hour, 3 * time.Hour}, {72 * time.Hour, 24 * time.Hour}} {
				n := ruleDecision("asn", fmt.Sprint(64500+i))
				n.Until = noon.Add(tc.length)
				l, err := d.Lift(t.Context(), register(t, d, n, noon).ID, policies.Act{By: "sato"}, noon)
				if got := l.HoldOff.Sub(noon); err != nil || got != tc.want {
					t.Errorf("of %v: got %v, %v, want %v", tc.length, got, err, tc.want)
				}
			}
		}},
		{"what is not there cannot be lifted", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			r := register(t, d, operatorDecision("asn", "64500"), noon)
			for name, id := range map[string]string{"unknown": "nothing", "ended": r.ID} {
				if _, err := d.Lift(t.Context(), id, policies.Act{By: "sato"}, noon.Add(2*time.Hour)); !errors.Is(err, policies.ErrNotFound) {
					t.Errorf("%s: got %v, want ErrNotFound", name, err)
				}
			}
			if _, err := d.Get(t.Context(), "nothing", noon); !errors.Is(err, policies.ErrNotFound) {
				t.Errorf("Get: got %v, want ErrNotFound", err)
			}
			if _, err := d.Lift(t.Context(), r.ID, policies.Act{}, noon); err == nil {
				t.Error("lifted by nobody")
			}
		}},
		{"what expires is told once, what was lifted never", func(t *testing.T, s policies.DecisionStore) {
			a, b := open(t, s, noon), open(t, s, noon)
			want := register(t, a, operatorDecision("asn", "64500"), noon)
			lifted := register(t, a, operatorDecision("asn", "64501"), noon)
			if _, err := a.Lift(t.Context(), lifted.ID, policies.Act{By: "sato"}, noon); err != nil {
				t.Fatal(err)
			}
			replaced := register(t, a, operatorDecision("asn", "64502"), noon)
			successor := operatorDecision("asn", "64502")
			successor.Until = noon.Add(5 * time.Hour)
			if got := register(t, a, successor, noon.Add(2*time.Hour)); got.ID == replaced.ID {
				t.Error("an ended decision was extended")
			}
			var told []string
			for _, d := range []*policies.Decisions{b, a, b} {
				over, err := d.Sweep(t.Context(), noon.Add(2*time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range over {
					told = append(told, o.ID)
				}
			}
			slices.Sort(told)
			both := []string{want.ID, replaced.ID}
			slices.Sort(both)
			if diff := cmp.Diff(both, told); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			if got, _ := a.Match(policies.Subject{ASN: 64502}, noon.Add(3*time.Hour)); got.ID == "" {
				t.Error("the successor went with its predecessor")
			}
		}},
		{"another node's changes arrive", func(t *testing.T, s policies.DecisionStore) {
			a, b := open(t, s, noon), open(t, s, noon)
			var heard []string
			b.Changed(func(d policies.Decision) {
				heard = append(heard, fmt.Sprintf("%s lifted=%v", d.Value, !d.Lifted.IsZero()))
			})
			r := register(t, a, operatorDecision("account", "7"), noon)
			who := policies.Subject{Account: "7"}
			if got, _ := b.Match(who, noon); got.ID != "" {
				t.Error("visible before reconciling")
			}
			reconcile := func() {
				t.Helper()
				for range 2 {
					if err := b.Reconcile(t.Context(), noon); err != nil {
						t.Fatal(err)
					}
				}
			}
			reconcile()
			if got, _ := b.Match(who, noon); got.ID != r.ID {
				t.Errorf("got %q, want %q", got.ID, r.ID)
			}
			if _, err := a.Lift(t.Context(), r.ID, policies.Act{By: "sato"}, noon); err != nil {
				t.Fatal(err)
			}
			reconcile()
			if got, _ := b.Match(who, noon); got.ID != "" {
				t.Error("still there after it was lifted elsewhere")
			}
			if diff := cmp.Diff([]string{"7 lifted=false", "7 lifted=true"}, heard); diff != "" {
				t.Errorf("heard (-want +got):\n%s", diff)
			}
		}},
		{"the first decision ever is lifted elsewhere", func(t *testing.T, s policies.DecisionStore) {
			a, b := open(t, s, noon), open(t, s, noon)
			r := register(t, a, operatorDecision("account", "7"), noon)
			if _, err := b.Lift(t.Context(), r.ID, policies.Act{By: "sato"}, noon); err != nil {
				t.Fatal(err)
			}
			if err := a.Reconcile(t.Context(), noon); err != nil {
				t.Fatal(err)
			}
			if got, _ := a.Match(policies.Subject{Account: "7"}, noon); got.ID != "" {
				t.Error("still there on the node that made it")
			}
		}},
		{"one fault stops all of a transaction", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			_, err := d.RegisterAll(t.Context(), []policies.Decision{operatorDecision("asn", "64500"), operatorDecision("asn", "x")}, noon)
			var faults policies.FieldErrors
			if !errors.As(err, &faults) {
				t.Fatalf("got %v, want field errors", err)
			}
			if page, _, err := d.List(t.Context(), policies.DecisionQuery{}, noon); err != nil || len(page) != 0 {
				t.Errorf("got %v, %v, want nothing", page, err)
			}
		}},
		{"a hold-off stops only its own", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			r := register(t, d, ruleDecision("asn", "64500"), noon)
			if _, err := d.Lift(t.Context(), r.ID, policies.Act{By: "sato"}, noon); err != nil {
				t.Fatal(err)
			}
			got, err := open(t, s, noon).RegisterAll(t.Context(), []policies.Decision{ruleDecision("asn", "64500"), ruleDecision("asn", "64501")}, noon)
			if !errors.Is(err, policies.ErrHeldOff) {
				t.Errorf("got %v, want held off", err)
			}
			if len(got) != 2 || got[0].ID != "" || got[1].ID == "" {
				t.Errorf("got %+v, want the second alone", got)
			}
		}},
		{"one subject twice in a transaction is one decision", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			longer := operatorDecision("asn", "64500")
			longer.Until = noon.Add(3 * time.Hour)
			got, err := d.RegisterAll(t.Context(), []policies.Decision{operatorDecision("asn", "64500"), longer, operatorDecision("asn", "64500")}, noon)
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				if got[i].ID != got[0].ID || !got[i].Until.Equal(longer.Until) {
					t.Errorf("%d: got %+v", i, got[i])
				}
			}
			if m, _ := d.Match(policies.Subject{ASN: 64500}, noon.Add(2*time.Hour)); m.ID != got[0].ID {
				t.Errorf("got %q, want %q", m.ID, got[0].ID)
			}
		}},
		{"lists are paged and filtered", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			names := map[string]string{}
			for i, n := range []policies.Decision{
				operatorDecision("address", "203.0.113.7"), operatorDecision("network", "203.0.113.0/24"), operatorDecision("network", "203.0.0.0/16"),
				operatorDecision("network", "198.51.100.0/24"), ruleDecision("account", "7"), ruleDecision("asn", "64500"),
			} {
				r := register(t, d, n, noon.Add(time.Duration(i)*time.Second))
				names[r.ID] = r.Value
				if r.Value == "64500" {
					if _, err := d.Lift(t.Context(), r.ID, policies.Act{By: "sato"}, noon.Add(time.Minute)); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, tc := range []struct {
				name string
				q    policies.DecisionQuery
				want []string
			}{
				{"all", policies.DecisionQuery{}, []string{"64500", "7", "198.51.100.0/24", "203.0.0.0/16", "203.0.113.0/24", "203.0.113.7"}},
				{"contains an address", policies.DecisionQuery{Address: "203.0.113.7"}, []string{"203.0.0.0/16", "203.0.113.0/24", "203.0.113.7"}},
				{"contains a mapped address", policies.DecisionQuery{Address: "::ffff:203.0.113.8"}, []string{"203.0.0.0/16", "203.0.113.0/24"}},
				{"scope", policies.DecisionQuery{Scope: "address"}, []string{"203.0.113.7"}},
				{"value", policies.DecisionQuery{Scope: "network", Value: "203.0.113.9/24"}, []string{"203.0.113.0/24"}},
				{"origin", policies.DecisionQuery{Origin: "rule"}, []string{"64500", "7"}},
				{"rule, live", policies.DecisionQuery{Rule: "stuffing.sequential", State: "live"}, []string{"7"}},
				{"ended", policies.DecisionQuery{State: "ended"}, []string{"64500"}},
			} {
				for _, limit := range []int{0, 1, 2} {
					q := tc.q
					q.Limit = limit
					var got []string
					for pages := 0; pages < 10; pages++ {
						page, next, err := d.List(t.Context(), q, noon.Add(2*time.Minute))
						if err != nil {
							t.Fatalf("%s: %v", tc.name, err)
						}
						for _, p := range page {
							got = append(got, names[p.ID])
						}
						if q.Cursor = next; next == "" {
							break
						}
					}
					if diff := cmp.Diff(tc.want, got); diff != "" {
						t.Errorf("%s, %d a page (-want +got):\n%s", tc.name, limit, diff)
					}
				}
			}
			for _, q := range []policies.DecisionQuery{{Limit: 201}, {Limit: -1}, {Address: "x"}, {State: "gone"}, {Value: "7"}, {Scope: "user"}, {Cursor: "%"}} {
				var faults policies.FieldErrors
				if _, _, err := d.List(t.Context(), q, noon); !errors.As(err, &faults) {
					t.Errorf("%+v: got %v, want field errors", q, err)
				}
			}
		}},
		{"old ends are forgotten", func(t *testing.T, s policies.DecisionStore) {
			d := open(t, s, noon)
			r := register(t, d, operatorDecision("asn", "64500"), noon)
			for _, now := range []time.Time{noon.Add(2 * time.Hour), noon.Add(400 * 24 * time.Hour)} {
				if _, err := d.Sweep(t.Context(), now); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := d.Get(t.Context(), r.ID, noon); !errors.Is(err, policies.ErrNotFound) {
				t.Errorf("got %v, want ErrNotFound", err)
			}
		}},
	} {
		for _, name := range places {
			t.Run(sc.name+"/"+name, func(t *testing.T) { sc.run(t, openPlace(t, name).store) })
		}
	}
}

func TestPrecedence(t *testing.T) {
	make := func(origin policies.Origin, action rules.Action, mode rules.Mode) policies.Decision {
		d := policies.Decision{Scope: "network", Value: "203.0.113.0/24", Origin: origin, Action: action, Mode: mode, By: "sato", Until: noon.Add(time.Hour)}
		if origin == policies.OriginRule {
			d.By = "a.rule"
		}
		return d
	}
	opDeny, opAllow := make("operator", rules.Delay, "enforce"), make("operator", rules.Allow, "enforce")
	ruleRefuse, ruleStepUp := make("rule", rules.Refuse, "enforce"), make("rule", rules.StepUp, "enforce")
	bookRefuse, ruleAllow := make("playbook", rules.Deceive, "enforce"), make("rule", rules.Allow, "enforce")
	opShadow, ruleShadow := make("operator", rules.Refuse, "shadow"), make("rule", rules.StepUp, "shadow")
	elsewhere := func(d policies.Decision, scope policies.Scope, value string) policies.Decision {
		d.Scope, d.Value = scope, value
		return d
	}
	everything := policies.Subject{Address: netip.MustParseAddr("203.0.113.9"), ASN: 64500, Country: "JP", Account: "7", Session: "s", Device: "d", Credential: "c", Fingerprint: "f"}
	own := everything
	own.OwnDevice = true
	for _, tc := range []struct {
		name             string
		given            []policies.Decision
		s                policies.Subject
		enforced, shadow string // origin and action
	}{
		{"nothing", nil, everything, "", ""},
		{"an operator's denial beats everything", []policies.Decision{opAllow, opDeny, ruleRefuse, bookRefuse}, everything, "operator delay", ""},
		{"an operator's allowance beats rules and playbooks", []policies.Decision{ruleRefuse, opAllow, bookRefuse}, everything, "operator allow", ""},
		{"the strictest of rules and playbooks", []policies.Decision{ruleStepUp, ruleRefuse, bookRefuse, ruleAllow}, everything, "playbook deceive", ""},
		{"a rule's denial beats a rule's allowance", []policies.Decision{ruleAllow, ruleStepUp}, everything, "rule step_up", ""},
		{"shadow never acts", []policies.Decision{opShadow, ruleStepUp, ruleShadow}, everything, "rule step_up", "operator refuse"},
		{"a narrow prefix does not hide a broad one", []policies.Decision{elsewhere(ruleStepUp, "address", "203.0.113.9"), elsewhere(ruleRefuse, "network", "203.0.0.0/16")}, everything, "rule refuse", ""},
		{"an ASN", []policies.Decision{elsewhere(ruleStepUp, "asn", "64500")}, everything, "rule step_up", ""},
		{"a country", []policies.Decision{elsewhere(ruleStepUp, "country", "JP")}, everything, "rule step_up", ""},
		{"an account", []policies.Decision{elsewhere(ruleStepUp, "account", "7")}, everything, "rule step_up", ""},
		{"a session", []policies.Decision{elsewhere(ruleStepUp, "session", "s")}, everything, "rule step_up", ""},
		{"a device", []policies.Decision{elsewhere(ruleStepUp, "device", "d")}, everything, "rule step_up", ""},
		{"a credential", []policies.Decision{elsewhere(ruleStepUp, "credential", "c")}, everything, "rule step_up", ""},
		{"a fingerprint", []policies.Decision{elsewhere(ruleStepUp, "fingerprint", "f")}, everything, "rule step_up", ""},
		{"scopes do not mix", []policies.Decision{elsewhere(ruleStepUp, "account", "d"), elsewhere(ruleStepUp, "device", "7")}, everything, "", ""},
		{"an own device is not its place", []policies.Decision{ruleRefuse, bookRefuse, elsewhere(ruleRefuse, "asn", "64500"), elsewhere(ruleRefuse, "country", "JP"), elsewhere(ruleRefuse, "fingerprint", "f"), elsewhere(ruleRefuse, "address", "203.0.113.9"), ruleShadow}, own, "", ""},
		{"a stranger cannot lock an account", []policies.Decision{elsewhere(ruleRefuse, "account", "7"), elsewhere(bookRefuse, "account", "7")}, own, "", ""},
		{"an own device answers for itself", []policies.Decision{ruleRefuse, elsewhere(ruleStepUp, "device", "d")}, own, "rule step_up", ""},
		{"operators mean own devices too", []policies.Decision{opDeny}, own, "operator delay", ""},
		{"a mapped address is the address", []policies.Decision{ruleStepUp}, policies.Subject{Address: netip.MustParseAddr("::ffff:203.0.113.9")}, "rule step_up", ""},
		{"IPv6", []policies.Decision{elsewhere(ruleStepUp, "network", "2001:db8::/32"), elsewhere(ruleRefuse, "network", "2001:db8:0:1::/64")}, at("2001:db8:0:1::7"), "rule refuse", ""},
		{"no address", []policies.Decision{ruleStepUp}, policies.Subject{}, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := openMemory(t)
			for _, n := range tc.given {
				register(t, d, n, noon)
			}
			text := func(d policies.Decision) string {
				if d.ID == "" {
					return ""
				}
				return string(d.Origin) + " " + d.Action.String()
			}
			e, s := d.Match(tc.s, noon)
			if text(e) != tc.enforced || text(s) != tc.shadow {
				t.Errorf("got %q and %q, want %q and %q", text(e), text(s), tc.enforced, tc.shadow)
			}
		})
	}
}

// countingStore counts transactions.
type countingStore struct {
	policies.DecisionStore
	updates int
	fail    error
}

func (s *countingStore) Update(ctx context.Context, do func(policies.DecisionTx) error) (uint64, error) {
	s.updates++
	if s.fail != nil {
		return 0, s.fail
	}
	return s.DecisionStore.Update(ctx, do)
}

func TestAnAttackIsNotATransactionPerAttempt(t *testing.T) {
	s := &countingStore{DecisionStore: policies.NewMemoryStore()}
	d := open(t, s, noon)
	for i := range 30 * 60 * 10 { // ten attempts a second for half an hour
		now := noon.Add(time.Duration(i) * time.Second / 10)
		n := ruleDecision("network", "203.0.113.0/24")
		n.Window, n.Until = now.Truncate(3*time.Minute), now.Add(30*time.Minute)
		got := register(t, d, n, now)
		if short := n.Until.Sub(got.Until); short > 2*time.Minute {
			t.Fatalf("at %v the decision ends %v early", now, short)
		}
	}
	if s.updates > 100 {
		t.Errorf("got %d transactions, want at most 100", s.updates)
	}
}

func TestNotDurableIsNotVisible(t *testing.T) {
	s := &countingStore{DecisionStore: policies.NewMemoryStore()}
	d := open(t, s, noon)
	r := register(t, d, operatorDecision("asn", "64500"), noon)
	s.fail = errors.New("disk full")
	if _, err := d.Register(t.Context(), operatorDecision("asn", "64501"), noon); !errors.Is(err, s.fail) {
		t.Errorf("got %v, want %v", err, s.fail)
	}
	if got, _ := d.Match(policies.Subject{ASN: 64501}, noon); got.ID != "" {
		t.Error("visible without being durable")
	}
	if _, err := d.Lift(t.Context(), r.ID, policies.Act{By: "sato"}, noon); !errors.Is(err, s.fail) {
		t.Errorf("got %v, want %v", err, s.fail)
	}
	if got, _ := d.Match(policies.Subject{ASN: 64500}, noon); got.ID != r.ID {
		t.Error("lifted without being durable")
	}
	if _, err := d.Sweep(t.Context(), noon.Add(2*time.Hour)); !errors.Is(err, s.fail) {
		t.Errorf("got %v, want %v", err, s.fail)
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, policies.NewMemoryStore(), time.Now())
		n := operatorDecision("asn", "64500")
		n.Created, n.Until = time.Time{}, time.Now().Add(time.Minute)
		want := register(t, d, n, time.Now())
		ctx, cancel := context.WithCancel(t.Context())
		var told []string
		done := make(chan error)
		go func() {
			done <- d.Run(ctx, 30*time.Second, time.Now, func(d policies.Decision) { told = append(told, d.ID) })
		}()
		time.Sleep(5 * time.Minute)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want canceled", err)
		}
		if diff := cmp.Diff([]string{want.ID}, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	d := open(t, openSQLStore(t), noon)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 20 {
				n := ruleDecision("address", fmt.Sprintf("203.0.113.%d", i))
				n.Until = noon.Add(time.Duration(1+w) * time.Hour)
				r, err := d.Register(context.Background(), n, noon)
				if err != nil && !errors.Is(err, policies.ErrHeldOff) {
					t.Error(err)
				}
				if err == nil && i%5 == w {
					if _, err := d.Lift(context.Background(), r.ID, policies.Act{By: "sato"}, noon); err != nil {
						t.Error(err)
					}
				}
			}
		})
		wg.Go(func() {
			for i := range 20_000 {
				d.Match(at(fmt.Sprintf("203.0.113.%d", i%20)), noon)
			}
		})
	}
	wg.Wait()
	for i := range 20 {
		got, _ := d.Match(at(fmt.Sprintf("203.0.113.%d", i)), noon)
		if lifted := i%5 < 4; lifted != (got.ID == "") {
			t.Errorf("address %d: got %+v", i, got)
		}
	}
}
