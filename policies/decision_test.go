package policies_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

func operatorDecision(scope policies.Scope, value string) policies.Decision {
	return policies.Decision{Scope: scope, Value: value, Action: rules.Refuse, Mode: rules.Enforce, Origin: policies.OriginOperator,
		By: "sato", Reason: "seen in the list of 2026-11-24", Created: noon, Until: noon.Add(time.Hour)}
}

func TestDecisionValidate(t *testing.T) {
	change := func(f func(*policies.Decision)) policies.Decision {
		d := operatorDecision(policies.ScopeAddress, "203.0.113.7")
		f(&d)
		return d
	}
	for _, tc := range []struct {
		name    string
		d       policies.Decision
		field   string // with a fault; empty: valid
		message string // part of what it says
	}{
		{"an address", operatorDecision("address", "203.0.113.7"), "", ""},
		{"an address in long form", operatorDecision("address", "2001:0DB8::0007"), "", ""},
		{"a network with host bits", operatorDecision("network", "203.0.113.77/24"), "", ""},
		{"an ASN with letters", operatorDecision("asn", "AS64500"), "", ""},
		{"a country in lower case", operatorDecision("country", "jp"), "", ""},
		{"an account", operatorDecision("account", "12345"), "", ""},
		{"the broadest IPv4", operatorDecision("network", "10.0.0.0/8"), "", ""},
		{"the broadest IPv6", operatorDecision("network", "2001::/19"), "", ""},
		{"everybody, forced", change(func(d *policies.Decision) { d.Scope, d.Value, d.Force = "network", "0.0.0.0/0", true }), "", ""},
		{"no creation time yet", change(func(d *policies.Decision) { d.Created = time.Time{} }), "", ""},
		{"exactly 366 days", change(func(d *policies.Decision) { d.Until = noon.Add(366 * 24 * time.Hour) }), "", ""},

		{"everybody", operatorDecision("network", "0.0.0.0/0"), "value", "set force"},
		{"all of IPv6", operatorDecision("network", "::/0"), "value", "set force"},
		{"a /7", operatorDecision("network", "10.0.0.0/7"), "value", "broader than /8"},
		{"a /18 of IPv6", operatorDecision("network", "2001::/18"), "value", "/19 (IPv6)"},
		{"an address as network", operatorDecision("network", "203.0.113.7"), "value", "write 203.0.113.7/32"},
		{"a network as address", operatorDecision("address", "203.0.113.0/24"), "value", `write scope "network"`},
		{"a star", operatorDecision("network", "203.0.113.*"), "value", "203.0.113.0/24"},
		{"a range", operatorDecision("network", "203.0.113.1-203.0.113.9"), "value", "one or more prefixes"},
		{"too many bits", operatorDecision("network", "203.0.113.0/33"), "value", "0 to 32"},
		{"a zone", operatorDecision("address", "fe80::1%eth0"), "value", "write fe80::1"},
		{"no address", operatorDecision("address", "example.com"), "value", "not an address"},
		{"leading zeros", operatorDecision("address", "203.0.113.007"), "value", "not an address"},
		{"ASN 0", operatorDecision("asn", "0"), "value", "64500"},
		{"an ASN of 33 bits", operatorDecision("asn", "4294967296"), "value", "64500"},
		{"a country by name", operatorDecision("country", "Japan"), "value", "two letters"},
		{"no value", operatorDecision("account", ""), "value", "missing"},
		{"a line break", operatorDecision("account", "a\nb"), "value", "control"},
		{"a long value", operatorDecision("account", strings.Repeat("a", 257)), "value", "at most 256"},
		{"an unknown scope", operatorDecision("user", "7"), "scope", "account"},
		{"no end", change(func(d *policies.Decision) { d.Until = time.Time{} }), "until", "every decision ends"},
		{"ended before it began", change(func(d *policies.Decision) { d.Until = noon }), "until", "time to come"},
		{"longer than a year", change(func(d *policies.Decision) { d.Until = noon.Add(366*24*time.Hour + time.Second) }), "until", "at most 366"},
		{"nobody", change(func(d *policies.Decision) { d.By = "" }), "by", "missing"},
		{"a rule by another name", change(func(d *policies.Decision) { d.Origin, d.By, d.Rule = "rule", "a", "b" }), "by", "leave it out"},
		{"an unknown origin", change(func(d *policies.Decision) { d.Origin = "bot" }), "origin", "playbook"},
		{"an unknown mode", change(func(d *policies.Decision) { d.Mode = "canary" }), "mode", "shadow"},
		{"an unknown action", change(func(d *policies.Decision) { d.Action = 9 }), "action", "refuse"},
		{"a novel", change(func(d *policies.Decision) { d.Reason = strings.Repeat("あ", 501) }), "reason", "at most 500"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.d.Validate()
			if tc.field == "" {
				if err != nil {
					t.Fatalf("got %v, want no fault", err)
				}
				return
			}
			var faults policies.FieldErrors
			if !errors.As(err, &faults) || len(faults) != 1 {
				t.Fatalf("got %v, want one fault", err)
			}
			if faults[0].Field != tc.field || !strings.Contains(faults[0].Message, tc.message) {
				t.Errorf("got %+v, want field %s with %q", faults[0], tc.field, tc.message)
			}
		})
	}
}

func TestDecisionValidateTellsAll(t *testing.T) {
	var faults policies.FieldErrors
	if err := (policies.Decision{Scope: "network", Value: "x"}).Validate(); !errors.As(err, &faults) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, f := range faults {
		got = append(got, f.Field)
	}
	if diff := cmp.Diff([]string{"value", "origin", "by", "until"}, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestCanonicalValues(t *testing.T) {
	d := openMemory(t)
	for _, tc := range []struct {
		scope     policies.Scope
		text      string
		want      string
		fieldFail bool
	}{
		{"address", "::ffff:203.0.113.7", "203.0.113.7", false},
		{"address", "64:ff9b::203.0.113.7", "203.0.113.7", false},
		{"address", "203.0.113.7/32", "203.0.113.7", false},
		{"address", "2001:DB8:0::7", "2001:db8::7", false},
		{"network", "203.0.113.77/24", "203.0.113.0/24", false},
		{"network", "::ffff:203.0.113.77/120", "203.0.113.0/24", false},
		{"network", "::ffff:0.0.0.0/95", "", true},
		{"network", "64:ff9b::203.0.113.0/120", "203.0.113.0/24", false},
		{"network", "2001:db8::7/32", "2001:db8::/32", false},
		{"asn", "as64500", "64500", false},
		{"asn", "00064500", "64500", false},
		{"country", "jp", "JP", false},
		{"account", "User 7", "User 7", false},
	} {
		t.Run(tc.text, func(t *testing.T) {
			got, err := d.Register(t.Context(), operatorDecision(tc.scope, tc.text), noon)
			if (err != nil) != tc.fieldFail {
				t.Fatalf("got error %v, want one: %v", err, tc.fieldFail)
			}
			if got.Value != tc.want {
				t.Errorf("got %q, want %q", got.Value, tc.want)
			}
		})
	}
}

func TestDecisionGolden(t *testing.T) {
	golden(t, "decision.json", policies.Decision{
		ID: "06f2k3n5r8v0w2x4z6a8b0c2d4", Scope: policies.ScopeNetwork, Value: "203.0.113.0/24", Action: rules.StepUp, Mode: rules.Shadow,
		Origin: policies.OriginRule, By: "stuffing.sequential", Rule: "stuffing.sequential", Reason: "30 names in order", Incident: "INC-7",
		Window: noon, Created: noon.Add(time.Minute), Until: noon.Add(time.Hour), Lifted: noon.Add(30 * time.Minute), LiftedBy: "sato", Entry: "node-1/4711", HoldOff: noon.Add(90 * time.Minute),
	})
	golden(t, "decision_least.json", policies.Decision{Scope: policies.ScopeCountry, Value: "JP", Origin: policies.OriginOperator, By: "sato", Mode: rules.Enforce, Created: noon, Until: noon.Add(time.Hour)})
}
