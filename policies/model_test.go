package policies_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// model is the live set as a list that is searched from end to end, with the
// precedence written out again.
type model struct{ all []policies.Decision }

func (m *model) match(s policies.Subject, now time.Time, mode rules.Mode) (best policies.Decision) {
	rank := func(d policies.Decision) int {
		switch operator, deny := d.Origin == policies.OriginOperator, d.Action != rules.Allow; {
		case operator && deny:
			return 4
		case operator:
			return 3
		case deny:
			return 2
		}
		return 1
	}
	for _, d := range m.all {
		if !d.Live(now) || d.Mode != mode || !covers(d, s) {
			continue
		}
		switch r, b := rank(d), rank(best); {
		case best.ID == "", r > b:
			best = d
		case r < b:
		case d.Action > best.Action:
			best = d
		case d.Action < best.Action:
		case d.Until.After(best.Until), d.Until.Equal(best.Until) && d.ID < best.ID:
			best = d
		}
	}
	return best
}

func covers(d policies.Decision, s policies.Subject) bool {
	hit := false
	switch d.Scope {
	case policies.ScopeAddress:
		hit = netip.MustParseAddr(d.Value) == s.Address
	case policies.ScopeNetwork:
		hit = netip.MustParsePrefix(d.Value).Contains(s.Address)
	case policies.ScopeASN:
		hit = d.Value == fmt.Sprint(s.ASN)
	case policies.ScopeAccount:
		hit = d.Value == s.Account
	case policies.ScopeFingerprint:
		hit = d.Value == s.Fingerprint
	}
	return hit && (d.Origin == policies.OriginOperator || !s.OwnDevice)
}

// TestAgainstModel registers, extends, lifts, lets expire, sweeps, reconciles and
// restarts in any order, with prefixes that overlap, and asks after each step.
func TestAgainstModel(t *testing.T) {
	for _, name := range places {
		t.Run(name, func(t *testing.T) {
			fewerChecks(t, name, "15")
			againstModel(t, openPlace(t, name))
		})
	}
}

func againstModel(t *testing.T, p place) {
	rapid.Check(t, func(t *rapid.T) {
		var m model
		now := noon
		p.clear(t)
		store := p.store
		openNode := func() *policies.Decisions {
			d, err := policies.OpenDecisions(t.Context(), store, now)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		nodes := []*policies.Decisions{openNode(), openNode()}
		address := rapid.Custom(func(t *rapid.T) netip.Addr {
			if rapid.Bool().Draw(t, "v6") {
				return netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%x::%x", rapid.IntRange(0, 3).Draw(t, "c"), rapid.IntRange(0, 3).Draw(t, "d")))
			}
			return netip.MustParseAddr(fmt.Sprintf("203.0.%d.%d", rapid.IntRange(112, 113).Draw(t, "c"), rapid.IntRange(0, 7).Draw(t, "d")))
		})
		value := func(scope policies.Scope) string {
			switch scope {
			case policies.ScopeAddress:
				return address.Draw(t, "address").String()
			case policies.ScopeNetwork:
				a := address.Draw(t, "address")
				p, _ := a.Prefix(rapid.IntRange(a.BitLen()-16, a.BitLen()).Draw(t, "bits"))
				return p.String()
			case policies.ScopeASN:
				return fmt.Sprint(rapid.IntRange(64500, 64503).Draw(t, "asn"))
			}
			return fmt.Sprint(rapid.IntRange(1, 4).Draw(t, "value"))
		}
		t.Repeat(map[string]func(*rapid.T){
			"register": func(t *rapid.T) {
				n := policies.Decision{
					Scope: rapid.SampledFrom([]policies.Scope{"address", "network", "network", "asn", "account", "fingerprint"}).Draw(t, "scope"),
					// A rule that is held off is a rule like any other to the model; it uses operators and playbooks to register again.
					Origin: rapid.SampledFrom([]policies.Origin{"rule", "operator", "playbook"}).Draw(t, "origin"),
					By:     rapid.SampledFrom([]string{"a", "b"}).Draw(t, "by"),
					Action: rules.Action(rapid.IntRange(0, 4).Draw(t, "action")),
					Mode:   rapid.SampledFrom([]rules.Mode{rules.Enforce, rules.Enforce, rules.Shadow}).Draw(t, "mode"),
					Until:  now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "minutes")) * time.Minute),
				}
				n.Value = value(n.Scope)
				held := time.Time{}
				for _, o := range m.all {
					if n.Origin == policies.OriginRule && o.Scope == n.Scope && o.Value == n.Value && string(o.Rule) == n.By && o.HoldOff.After(held) {
						held = o.HoldOff
					}
				}
				got, err := nodes[rapid.IntRange(0, 1).Draw(t, "node")].Register(t.Context(), n, now)
				if wantHeld := held.After(now); wantHeld != (err != nil) {
					t.Fatalf("got %v, want held off: %v", err, wantHeld)
				}
				if err != nil {
					return
				}
				for i, o := range m.all {
					if o.Live(now) && o.Scope == n.Scope && o.Value == n.Value && o.Origin == n.Origin && o.By == n.By && o.Action == n.Action && o.Mode == n.Mode {
						if n.Until.After(o.Until) {
							m.all[i].Until = n.Until
						}
						if got.ID != o.ID || !got.Until.Equal(m.all[i].Until) {
							t.Fatalf("got %+v, want %+v", got, m.all[i])
						}
						return
					}
				}
				m.all = append(m.all, got.Decision)
			},
			"lift": func(t *rapid.T) {
				if len(m.all) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(m.all)-1).Draw(t, "which")
				live := m.all[i].Live(now)
				got, err := nodes[rapid.IntRange(0, 1).Draw(t, "node")].Lift(t.Context(), m.all[i].ID, policies.Act{By: "sato"}, now)
				if wantErr := !live && m.all[i].Lifted.IsZero(); wantErr != (err != nil) {
					t.Fatalf("got %v, want an error: %v", err, wantErr)
				}
				if live {
					m.all[i] = got
				}
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "minutes")) * time.Minute)
			},
			"sweep": func(t *rapid.T) {
				if _, err := nodes[rapid.IntRange(0, 1).Draw(t, "node")].Sweep(t.Context(), now); err != nil {
					t.Fatal(err)
				}
			},
			"restart": func(t *rapid.T) { nodes[rapid.IntRange(0, 1).Draw(t, "node")] = openNode() },
			"": func(t *rapid.T) {
				s := policies.Subject{
					Address: address.Draw(t, "address"), ASN: uint32(rapid.IntRange(64499, 64503).Draw(t, "asn")),
					Account: fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "account")), Fingerprint: fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "fingerprint")),
					OwnDevice: rapid.Bool().Draw(t, "own"),
				}
				for i, node := range nodes {
					if err := node.Reconcile(t.Context(), now); err != nil {
						t.Fatal(err)
					}
					enforced, shadow := node.Match(s, now)
					want := []policies.Decision{m.match(s, now, rules.Enforce), m.match(s, now, rules.Shadow)}
					if diff := cmp.Diff(want, []policies.Decision{enforced, shadow}); diff != "" {
						t.Fatalf("node %d, %+v (-want +got):\n%s", i, s, diff)
					}
				}
			},
		})
	})
}
