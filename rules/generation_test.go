package rules_test

import (
	"strings"
	"testing"

	"github.com/kidoban/kidoban/rules"
)

func TestHashTellsSetsApart(t *testing.T) {
	second := strings.Replace(good(t), "id: test.example", "id: test.other", 1)
	one := load(t, "a.yaml", good(t), "b.yaml", second)
	same := load(t, "z.yaml", good(t), "b.yaml", second) // the name of the file is not the rule
	for what, other := range map[string]*rules.Set{
		"one rule less":     load(t, "a.yaml", good(t)),
		"another text":      load(t, "a.yaml", good(t)+"\n", "b.yaml", second),
		"no rules":          load(t),
		"their ids swapped": load(t, "a.yaml", strings.Replace(good(t), "id: test.example", "id: test.third", 1), "b.yaml", second),
	} {
		if other.Hash() == one.Hash() {
			t.Errorf("%s: the hash is the same", what)
		}
	}
	if one.Hash() != same.Hash() || one.Hash() != one.Fresh().Hash() || len(one.Hash()) != 64 {
		t.Errorf("the same rules: %s and %s", one.Hash(), same.Hash())
	}
	if r, ok := one.Rule("test.other"); !ok || r.File != "b.yaml" {
		t.Errorf("got %+v, %v", r, ok)
	}
	if _, ok := one.Rule("none"); ok {
		t.Error("there is a rule none")
	}
}

// A list counts where rules ask it, with what it includes.
func TestHashTellsListsApart(t *testing.T) {
	asks := asking(t, "tor", "source.address", "source: 203.0.113.7")
	files := func(more ...string) []string {
		return append([]string{"a.yaml", asks, "lists/tor.networks", "203.0.113.7\ninclude more\n", "lists/more.networks", "192.0.2.1\n"}, more...)
	}
	one := load(t, files()...)
	for what, other := range map[string]*rules.Set{
		"another list":          load(t, files("lists/tor.networks", "203.0.113.7\n203.0.113.8\ninclude more\n")...),
		"another included list": load(t, files("lists/more.networks", "192.0.2.2\n")...),
	} {
		if other.Hash() == one.Hash() {
			t.Errorf("%s: the hash is the same", what)
		}
	}
	if same := load(t, files("lists/unasked.asns", "64500\n")...); same.Hash() != one.Hash() || same.Fresh().Hash() != one.Hash() {
		t.Error("a list that no rule asks counts")
	}
	exempt := edited(t, "then:", "except:\n  - {list: office, owner: hanako, reason: Our own office., until: 2026-11-24}\nthen:")
	if load(t, "a.yaml", exempt, "lists/office.networks", "198.51.100.1\n").Hash() == load(t, "a.yaml", exempt, "lists/office.networks", "198.51.100.2\n").Hash() {
		t.Error("the list of an exemption: the hash is the same")
	}
}
