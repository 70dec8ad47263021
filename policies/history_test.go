package policies_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/policies"
)

// kept is a history in memory.
type kept map[string]string

func (k kept) Good(name string, data []byte) error { k[name] = string(data); return nil }
func (k kept) Forget(name string) error            { delete(k, name); return nil }
func (k kept) Names() []string                     { return nil }
func (k kept) LastGood(name string) ([]byte, string, bool) {
	data, ok := k[name]
	return []byte(data), fmt.Sprintf("version%05d", len(data)), ok
}

func TestLastGoodFilesStay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "own")
	h := kept{}
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
	title := func(s string) string { return preset(map[string]string{"title": s}) }
	for _, step := range []struct {
		what   string
		do     func()
		delay  time.Duration
		failed string // of both files
		left   []string
	}{
		{what: "nothing there", do: func() {}, delay: 2 * time.Second, failed: "there is no small.yaml"},
		{what: "bad without a past", do: func() { write("policy.yaml", "delay: never\n"); write("backends/small.yaml", "x: 1\n") }, failed: "small.yaml:1:1"},
		{what: "good", do: func() { write("policy.yaml", "delay: 3s\n"); write("backends/small.yaml", title("One")) }, delay: 3 * time.Second},
		{what: "bad", do: func() { write("policy.yaml", "delay: never\n"); write("backends/small.yaml", "x: 1\n") }, delay: 3 * time.Second,
			left: []string{"policy.yaml:1:8", "version00010 stays in force", "backends/small.yaml:1:1"}},
		{what: "the folder went", do: func() {
			if err := os.Rename(dir, dir+".away"); err != nil {
				t.Fatal(err)
			}
		}, delay: 3 * time.Second, left: []string{"policy.yaml", "backends/small.yaml", "stays in force"}},
		{what: "deleted", do: func() {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}, delay: 2 * time.Second, failed: "there is no small.yaml"},
	} {
		step.do()
		fsys := os.DirFS(dir)
		p, left, err := policies.LoadPolicyWithHistory(fsys, h)
		if err == nil && p.Delay != step.delay && step.delay > 0 {
			t.Errorf("%s: delay %v, want %v", step.what, p.Delay, step.delay)
		}
		_, leftBackend, backendErr := policies.LoadBackendWithHistory("small", fsys, h)
		if (backendErr != nil) != (step.failed != "") || backendErr != nil && !strings.Contains(backendErr.Error(), step.failed) {
			t.Errorf("%s: the preset: %v, want %q", step.what, backendErr, step.failed)
		}
		told := fmt.Sprint(left, leftBackend)
		for _, part := range step.left {
			if !strings.Contains(told, part) {
				t.Errorf("%s: told %q, want %q", step.what, told, part)
			}
		}
		if len(step.left) == 0 && (left != nil || leftBackend != nil) {
			t.Errorf("%s: told %q", step.what, told)
		}
	}
}
