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
