package rules_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// many is n rules that differ, among them counters of ten windows.
func many(t testing.TB, n int) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := range n {
		text := edited(t, "test.example", fmt.Sprintf("test.n%d", i), "An example", fmt.Sprintf("Example %d", i), "within: 10m", fmt.Sprintf("within: %dm", 10+i%10))
		fsys[fmt.Sprintf("n%04d.yaml", i)] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

// Of a thousand files with one that goes bad, the others load and that one's last good
// version stays, over a reload and over a cold start.
func TestOneBadFileAmongAThousand(t *testing.T) {
	fsys, h := many(t, 1000), &memory{versions: map[string]string{}}
	set, errs := rules.LoadWithHistory(fsys, h)
	if len(errs) > 0 {
		t.Fatal(errors.Join(errs...))
	}
	fsys = maps.Clone(fsys)
	was := string(fsys["n0500.yaml"].Data)
	fsys["n0500.yaml"] = &fstest.MapFile{Data: []byte(strings.Replace(was, "tried >= 3", "tried >= three", 1))}
	newer := strings.Replace(string(fsys["n0501.yaml"].Data), "title: ", "title: Newer ", 1)
	fsys["n0501.yaml"] = &fstest.MapFile{Data: []byte(newer)}
	for name, load := range map[string]func() (*rules.Set, []error){
		"a reload":     func() (*rules.Set, []error) { return rules.Reload(set, fsys, h) },
		"a cold start": func() (*rules.Set, []error) { return rules.LoadWithHistory(fsys, h) },
	} {
		begun := time.Now()
		next, errs := load()
		t.Logf("%s: %v", name, time.Since(begun))
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), "n0500.yaml:10:16: ") || !strings.Contains(errs[0].Error(), "its version "+hash(was)[:12]+" stays in force") {
			t.Errorf("%s: got %v, want the one fault and what stays in force", name, errs)
		}
		in := next.Rules()
		byID := map[rules.ID]rules.Rule{}
		for _, r := range in {
			byID[r.ID] = r
		}
		if len(in) != 1000 || byID["test.n500"].Generation != hash(was) || byID["test.n501"].Title != "Newer Example 501" {
			t.Errorf("%s: got %d rules, generation %.12s, title %q", name, len(in), byID["test.n500"].Generation, byID["test.n501"].Title)
		}
	}
}

// A reload takes what did not change from the set before, and nothing else.
func TestReload(t *testing.T) {
	asks := edited(t, "when: tried >= 3", `when: tried >= 3 && listed("tor", source.address)`, "outcome: failure}", "outcome: failure, source: 203.0.113.7}")
	one := folder("a.yaml", edited(t, "test.example", "test.plain"), "b.yaml", asks, "lists/tor.networks", "203.0.113.7\n")
	h := &memory{versions: map[string]string{}}
	old, errs := rules.LoadWithHistory(one, h)
	if len(errs) > 0 {
		t.Fatal(errors.Join(errs...))
	}
	events := failures(3, "203.0.113.7")
	observe(old, events...)
	found := func(s *rules.Set) (n int) { return len(s.Evaluate(rules.LoginAfter, events[2], nil)) }
	if got := found(old); got != 2 {
		t.Fatalf("got %d findings, want 2", got)
	}
	same, errs := rules.Reload(old, one, h)
	if got := found(same); len(errs) > 0 || got != 0 {
		t.Errorf("a reload: got %v and %d findings, want a set that counted nothing", errs, got)
	}
	same.Adopt(old)
	if got := found(same); got != 2 {
		t.Errorf("after adopting: got %d findings, want 2", got)
	}
	moved := folder("c.yaml", string(one["a.yaml"].Data))
	next, errs := rules.Reload(old, moved, h)
	if got := next.Rules(); len(errs) > 0 || len(got) != 1 || got[0].File != "c.yaml" {
		t.Errorf("a file that moved: got %v, %v", got, errs)
	}
	if _, errs = rules.LoadWithHistory(one, h); len(errs) > 0 { // moved back
		t.Fatal(errors.Join(errs...))
	}
	// The list loses the address that the rule's own tests are from.
	changed := maps.Clone(one)
	changed["lists/tor.networks"] = &fstest.MapFile{Data: []byte("198.51.100.0/24\n")}
	next, errs = rules.Reload(old, changed, h)
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), `lists/tor.networks: with this list b.yaml:15:5: tests: "three failures match" fails`) {
		t.Errorf("a list that changed: got %v, want the rule's test to fail", errs)
	}
	next.Adopt(old)
	if got := found(next); got != 2 {
		t.Errorf("a list that changed: got %d findings, want that of the rule with the list as it was, too", got)
	}
	// Without a history, as where none can be kept, the rule cannot be in force.
	next, errs = rules.Reload(old, changed, nil)
	if got := next.Rules(); len(errs) != 1 || len(got) != 1 || got[0].ID != "test.plain" {
		t.Errorf("a list that changed, without a history: got %v, %v", got, errs)
	}
}

func BenchmarkSwapOfAThousandRules(b *testing.B) {
	fsys := many(b, 1000)
	h := &memory{versions: map[string]string{}}
	old, errs := rules.LoadWithHistory(fsys, h)
	if len(errs) > 0 {
		b.Fatal(errors.Join(errs...))
	}
	for i := range 1000 {
		for _, e := range failures(3, fmt.Sprintf("10.0.%d.%d", i/250, i%250)) {
			old.Observe(e)
		}
	}
	edit := func(n, turn int) fstest.MapFS {
		changed := maps.Clone(fsys)
		for i := range n {
			name := fmt.Sprintf("n%04d.yaml", i)
			changed[name] = &fstest.MapFile{Data: append([]byte(fmt.Sprintf("# %d\n", turn)), fsys[name].Data...)}
		}
		return changed
	}
	for name, n := range map[string]int{"none changed": 0, "one changed": 1, "all changed": 1000} {
		b.Run(name, func(b *testing.B) {
			turn := 0
			for b.Loop() {
				turn++
				next, errs := rules.Reload(old, edit(n, turn), h)
				if len(errs) > 0 {
					b.Fatal(errs[0])
				}
				next.Adopt(old)
				next.Evaluate(rules.LoginAfter, detectors.Event{}, nil)
			}
		})
	}
}
