package policies_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

func TestDecisionsOf(t *testing.T) {
	e := detectors.Event{
		Time: noon.Add(4*time.Minute + 17*time.Second), Kind: detectors.Login, Account: "7", Session: "s", Fingerprint: "f", Credential: "session",
		Device: detectors.Device{ID: "d", State: detectors.Stranger},
		Source: detectors.Source{Address: netip.MustParseAddr("2001:db8::7"), Network: netip.MustParsePrefix("2001:db8::/64"), ASN: 64500, Country: "JP"},
	}
	finding := func(scopes ...string) rules.Finding {
		f := rules.Finding{Rule: "a.rule", Mode: rules.Enforce, Why: "because", Time: e.Time}
		for _, s := range scopes {
			f.Then = append(f.Then, rules.Response{Decide: &rules.Decide{Scope: s, Action: rules.StepUp, For: 30 * time.Minute}})
		}
		return f
	}
	subjects := func(ds []policies.Decision) (out []string) {
		for _, d := range ds {
			out = append(out, string(d.Scope)+" "+d.Value)
		}
		return out
	}
	every := []string{"source.address", "source.network", "source.asn", "source.country", "account", "session", "device", "fingerprint", "credential", "nothing"}

	t.Run("every scope has its value, but a credential's kind is none", func(t *testing.T) {
		want := []string{"address 2001:db8::7", "network 2001:db8::/64", "asn 64500", "country JP", "account 7", "session s", "device d", "fingerprint f"}
		if diff := cmp.Diff(want, subjects(policies.DecisionsOf(finding(every...), e))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("what an event does not tell is not decided on", func(t *testing.T) {
		if got := policies.DecisionsOf(finding(every...), detectors.Event{Time: noon}); len(got) != 0 {
			t.Errorf("got %v, want none", subjects(got))
		}
	})
	t.Run("all fields", func(t *testing.T) {
		f := finding("source.asn")
		f.Then = append(f.Then, rules.Response{Incident: &rules.Incident{Category: "credential-stuffing", Key: "source.asn"}})
		want := []policies.Decision{{Scope: "asn", Value: "64500", Action: rules.StepUp, Mode: rules.Enforce, Origin: policies.OriginRule, By: "a.rule", Rule: "a.rule",
			Reason: "because", Window: noon.Add(3 * time.Minute), Until: e.Time.Add(30 * time.Minute)}}
		if diff := cmp.Diff(want, policies.DecisionsOf(f, e)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("a mode that does not say enforce is shadow", func(t *testing.T) {
		f := finding("account")
		for _, m := range []rules.Mode{rules.Shadow, ""} {
			f.Mode = m
			if got := policies.DecisionsOf(f, e)[0].Mode; got != rules.Shadow {
				t.Errorf("%q: got %q, want shadow", m, got)
			}
		}
	})
	t.Run("they can be registered, however long the reason", func(t *testing.T) {
		f := finding(every...)
		f.Why = strings.Repeat("あ", 600)
		d := openMemory(t)
		got, err := d.RegisterAll(t.Context(), policies.DecisionsOf(f, e), e.Time)
		if err != nil || len(got) != 8 {
			t.Errorf("got %d, %v, want 8", len(got), err)
		}
	})
}

func TestAnswers(t *testing.T) {
	answer := func(a rules.Action, m rules.Mode) rules.Finding {
		return rules.Finding{Rule: rules.ID(a.String()), Mode: m, Then: []rules.Response{{Incident: &rules.Incident{}}, {Answer: a}}}
	}
	calm := []detectors.Signal{{Name: "source.flagged", Value: 0}, {Name: "campaign.rank", Value: 1}}
	attack := []detectors.Signal{{Name: "campaign.alarm", Value: 1}}
	for name, test := range map[string]struct {
		found            []rules.Finding
		signals          []detectors.Signal
		enforced, shadow rules.Action
	}{
		"nothing found":              {},
		"a decision is no answer":    {found: []rules.Finding{{Mode: rules.Enforce, Then: []rules.Response{{Decide: &rules.Decide{Action: rules.Refuse}}}}}},
		"the strictest":              {found: []rules.Finding{answer(rules.Delay, rules.Enforce), answer(rules.StepUp, rules.Enforce)}, enforced: rules.StepUp},
		"shadow acts on nobody":      {found: []rules.Finding{answer(rules.Delay, rules.Enforce), answer(rules.Refuse, rules.Shadow)}, enforced: rules.Delay, shadow: rules.Refuse},
		"no mode is shadow":          {found: []rules.Finding{answer(rules.Refuse, "")}, shadow: rules.Refuse},
		"nobody is deceived in vain": {found: []rules.Finding{answer(rules.Deceive, rules.Enforce)}, signals: calm, enforced: rules.Refuse},
		"who attacks is deceived":    {found: []rules.Finding{answer(rules.Deceive, rules.Enforce)}, signals: attack, enforced: rules.Deceive},
	} {
		enforced, shadow := policies.AnswerOf(test.found, test.signals)
		if enforced.Action != test.enforced || shadow.Action != test.shadow {
			t.Errorf("%s: %v, %v, want %v, %v", name, enforced.Action, shadow.Action, test.enforced, test.shadow)
		}
		if enforced.Action != rules.Allow && (enforced.Reason != policies.ReasonRule || enforced.Rule == "") {
			t.Errorf("%s: reason %q of rule %q", name, enforced.Reason, enforced.Rule)
		}
	}
}
