package rules_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/rules"
)

// memory is a small true history.
type memory struct {
	versions map[string]string
	full     bool
}

func (m *memory) Good(name string, content []byte) error {
	if m.full {
		return errors.New("disk full")
	}
	m.versions[name] = string(content)
	return nil
}

func (m *memory) LastGood(name string) ([]byte, string, bool) {
	content, ok := m.versions[name]
	return []byte(content), hash(content), ok
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func (m *memory) Names() []string          { return slices.Sorted(maps.Keys(m.versions)) }
func (m *memory) Forget(name string) error { delete(m.versions, name); return nil }

type unreadable struct{ fs.FS }

func (unreadable) ReadDir(string) ([]fs.DirEntry, error) { return nil, errors.New("I/O error") }

func TestTheLastGoodVersionStays(t *testing.T) {
	one, two := good(t), edited(t, "test.example", "test.other")
	newer := edited(t, "title: ", "title: Newer ")
	bad := edited(t, "login.after", "logout")
	failing := edited(t, "tried >= 3", "tried >= 4")
	short := func(text string) string { return hash(text)[:12] }
	type step struct {
		files  []string // nil: the folder cannot be read
		titles map[rules.ID]string
		faults []string // each a part
	}
	title := func(text string) string {
		_, rest, _ := strings.Cut(text, "title: ")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	was, is := title(one), title(newer)
	for name, steps := range map[string][]step{
		"bad, then mended": {
			{[]string{"a.yaml", one}, map[rules.ID]string{"test.example": was}, nil},
			{[]string{"a.yaml", bad}, map[rules.ID]string{"test.example": was}, []string{"a.yaml:9:5: ", "; its version " + short(one) + " stays in force"}},
			{[]string{"a.yaml", newer}, map[rules.ID]string{"test.example": is}, nil},
			{[]string{"a.yaml", failing}, map[rules.ID]string{"test.example": is}, []string{"fails", "; its version " + short(newer) + " stays in force"}},
		},
		"never good": {
			{[]string{"a.yaml", bad}, map[rules.ID]string{}, []string{"a.yaml:9:5: "}},
		},
		"deleted": {
			{[]string{"a.yaml", one, "b.yaml", two}, map[rules.ID]string{"test.example": was, "test.other": was}, nil},
			{[]string{"b.yaml", two}, map[rules.ID]string{"test.other": was}, nil},
			{[]string{"a.yaml", bad, "b.yaml", two}, map[rules.ID]string{"test.other": was}, []string{"a.yaml:9:5: "}},
		},
		"the folder cannot be read": {
			{[]string{"a.yaml", one}, map[rules.ID]string{"test.example": was}, nil},
			{nil, map[rules.ID]string{"test.example": was}, []string{"reading the folder of rules: I/O error", "a.yaml: the folder cannot be read; its version " + short(one) + " stays in force"}},
			{[]string{}, map[rules.ID]string{}, nil},
		},
		"its id went to another file": {
			{[]string{"b.yaml", one}, map[rules.ID]string{"test.example": was}, nil},
			{[]string{"a.yaml", newer, "b.yaml", bad}, map[rules.ID]string{"test.example": is}, []string{"b.yaml:9:5: ", "; its version " + short(one) + " cannot stay in force: b.yaml:1:1: id: \"test.example\" is the id of the rule in a.yaml already"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := &memory{versions: map[string]string{}}
			for i, s := range steps {
				var fsys fs.FS = folder(s.files...)
				if s.files == nil {
					fsys = unreadable{fstest.MapFS{}}
				}
				set, errs := rules.LoadWithHistory(fsys, h)
				titles := map[rules.ID]string{}
				for _, r := range set.Rules() {
					titles[r.ID] = r.Title
				}
				if diff := cmp.Diff(s.titles, titles); diff != "" {
					t.Errorf("step %d: rules (-want +got):\n%s", i, diff)
				}
				all := errors.Join(errs...)
				if (all == nil) != (len(s.faults) == 0) {
					t.Errorf("step %d: got %v, want %q", i, all, s.faults)
				}
				for _, part := range s.faults {
					if all != nil && !strings.Contains(all.Error(), part) {
						t.Errorf("step %d: got %v, want it to say %q", i, all, part)
					}
				}
			}
		})
	}
	t.Run("cannot be remembered", func(t *testing.T) {
		set, errs := rules.LoadWithHistory(folder("a.yaml", one), &memory{full: true})
		if len(set.Rules()) != 1 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "a.yaml: is in force, but not remembered for the day it goes bad: disk full") {
			t.Errorf("got %d rules and %v", len(set.Rules()), errs)
		}
	})
}
