package rules_test

import (
	"testing"

	"github.com/kidoban/kidoban/rules"
)

func TestShippedRulesLoadAndPassTheirTests(t *testing.T) {
	set, errs := rules.Load(rules.Shipped)
	for _, err := range errs {
		t.Error(err)
	}
	if got, want := len(set.Rules()), 27; got != want {
		t.Errorf("rules: got %d, want %d", got, want)
	}
}
