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
