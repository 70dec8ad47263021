package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/policies"
)

// A policy that does not check keeps no preset from being read, and the other way
// round; what was in force stays.
func TestFilesFailAlone(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	policy, err := policies.LoadPolicy(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := policies.LoadBackend("chatcore", nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &Handler{Backend: "chatcore"}
	a := &App{Policies: dir, policy: policy, handlers: []*Handler{h}}
	h.app = a
	h.backend.Store(b)
	write("policy.yaml", "attempts: 7\n")
	write("backends/chatcore.yaml", "nonsense: 1\n")
	faults := a.loadPolicies(nil, openHistory(t.TempDir()).policies)
	if len(faults) != 2 || !strings.Contains(faults[0].Error(), "policy.yaml:1") || !strings.Contains(faults[1].Error(), "chatcore.yaml:1") {
		t.Errorf("faults are %v, want one of each file", faults)
	}
	if h.backend.Load() != b || h.guard.Load() == nil {
		t.Error("the preset that was in force is not any more")
	}
}

// A list that is deleted while a rule asks it stays as it was, told as a fault that names
// both, over a reload and a restart; with the rule it goes.
func TestADeletedListStays(t *testing.T) {
	a, data := &App{Rules: t.TempDir()}, t.TempDir()
	rule, list := filepath.Join(a.Rules, "own.office.yaml"), filepath.Join(a.Rules, "lists", "office.networks")
	if err := os.Mkdir(filepath.Dir(list), 0o700); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{rule: `id: own.office
title: The office fails
severity: low
owner: security-team
reason: For a test.
review_by: 2027-05-31
on: login.after
when: listed("office", source.address)
then:
  - tag: office
mode: shadow
tests:
  - name: the office matches
    given: [{outcome: failure, source: 203.0.113.7}]
    expect: match
  - name: nobody else does
    given: [{outcome: failure, source: 192.0.2.1}]
    expect: none
`, list: "203.0.113.0/24\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := openHistory(data).rules
	set, faults := a.loadRules(h, nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	was, all := set.Hash(), len(set.Rules())
	if err := os.RemoveAll(filepath.Dir(list)); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"a check", "a reload", "a restart", "another"} {
		switch step {
		case "a check":
			set, faults = a.loadRules(reader{h}, set)
		case "a reload":
			set, faults = a.loadRules(h, set)
		default:
			set, faults = a.loadRules(openHistory(data).rules, nil)
		}
		if len(faults) != 1 || !strings.Contains(faults[0].Error(), "lists/office.networks: the list is gone") || !strings.Contains(faults[0].Error(), "for rules own.office") {
			t.Errorf("%s: faults are %v, want one that names the list and the rule", step, faults)
		}
		if set.Hash() != was || len(set.Rules()) != all {
			t.Errorf("%s: %d rules are in force, want the same %d", step, len(set.Rules()), all)
		}
	}
	if err := os.Remove(rule); err != nil {
		t.Fatal(err)
	}
	if set, faults = a.loadRules(h, set); len(faults) > 0 || len(set.Rules()) != all-1 {
		t.Errorf("without the rule: %d rules, faults %v", len(set.Rules()), faults)
	}
	for _, name := range h.Names() {
		if strings.Contains(name, "office") {
			t.Errorf("%s is remembered", name)
		}
	}
}
