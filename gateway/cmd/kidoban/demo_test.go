package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

func TestDemoCaddyfile(t *testing.T) {
	c := gateConfig{
		dir: "/tmp/demo dir", listen: hostPort{"127.0.0.1", "8443"}, backend: "127.0.0.1:9000",
		operators: hostPort{"127.0.0.1", "8444"}, key: "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
	}
	got, err := c.caddyfile()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "demo.caddyfile", got)
	c.dir = "/tmp/`rm`"
	if _, err := c.caddyfile(); err == nil {
		t.Error("a directory with a backquote was taken")
	}
}

func TestClosingTable(t *testing.T) {
	eight := 8
	var s attackScore
	s.Unprotected = simulate.Score{Attack: simulate.Attack{Attempts: 10000, ReachedBackend: 10000, AccountsLost: 50}, Benign: simulate.Benign{Logins: 2000}}
	s.Passes.Established = simulate.Score{Attack: simulate.Attack{Attempts: 10000, ReachedBackend: 11, AccountsLost: 1, FirstAction: &eight}, Benign: simulate.Benign{Logins: 2000}}
	s.Passes.FirstDay = simulate.Score{Attack: simulate.Attack{Attempts: 10000, ReachedBackend: 9, FirstAction: &eight}, Benign: simulate.Benign{Logins: 2000, SteppedUp: 2}}
	s.Guarded = simulate.Join(s.Passes.Established, s.Passes.FirstDay)
	rows := []policies.LedgerRow{{Control: "decisions", Action: rules.StepUp, Reason: policies.ReasonDecision, Rule: "stuffing.sequential", Count: 19980}}
	for _, lang := range []string{"en", "ja"} {
		for name, observed := range map[string]bool{"enforce": false, "observe": true} {
			var b strings.Builder
			if err := writeScore(&b, phrases(lang), s, observed, rows); err != nil {
				t.Fatal(err)
			}
			golden(t, "table."+name+"."+lang+".txt", b.String())
		}
	}
}

func TestShare(t *testing.T) {
	for text, want := range map[string]share{"0": 0, "0.005": 0.005, "0.5%": 0.005, " 12 % ": 0.12, "1": 1, "100%": 1} {
		var got share
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "-1", "1.1", "101%", "half", "NaN", "0.5%%"} {
		var got share
		if err := got.Set(text); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
}

func TestLanguage(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"nothing said", nil, "en"},
		{"Japanese", map[string]string{"LANG": "ja_JP.UTF-8"}, "ja"},
		{"another language", map[string]string{"LANG": "de_DE.UTF-8"}, "en"},
		{"LC_ALL comes first", map[string]string{"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "en"},
		{"messages come before the rest", map[string]string{"LANG": "en_US.UTF-8", "LC_MESSAGES": "ja_JP.UTF-8"}, "ja"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := language(func(k string) string { return tt.env[k] }); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 30, 0, 0, time.UTC)
	for _, tt := range []struct {
		text string
		want time.Time
	}{
		{"", time.Time{}},
		{"2026-11-20", time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)},
		{"2026-11-20T18:00", time.Date(2026, 11, 20, 18, 0, 0, 0, time.UTC)},
		{"2026-11-20T18:00:00+09:00", time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)},
		{"90m", now.Add(-90 * time.Minute)},
		{"7d", now.AddDate(0, 0, -7)},
	} {
		got, err := moment("--from", tt.text, now, time.Time{})
		if err != nil || !got.Equal(tt.want) {
			t.Errorf("%q is %v (%v), want %v", tt.text, got, err, tt.want)
		}
	}
	for _, text := range []string{"yesterday", "-1h", "-7d", "2026-13-01"} {
		if got, err := moment("--from", text, now, time.Time{}); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
}

// The office is one company, and nobody of the list works there.
func TestSeedOffice(t *testing.T) {
	for seed := range uint64(3) {
		office, rest, err := seedOffice(t.Context(), filepath.Join(t.TempDir(), "world.db"), 40, 30, seed)
		if err != nil {
			t.Fatal(err)
		}
		if len(office) != 40 || len(rest) < 30 {
			t.Errorf("seed %d: an office of %d and %d others, want 40 and at least 30", seed, len(office), len(rest))
		}
		for _, a := range office {
			if a.Organization != office[0].Organization {
				t.Errorf("seed %d: %s works at %s and not at %s", seed, a.Email, a.Organization, office[0].Organization)
			}
		}
		for _, a := range rest {
			if a.Organization == office[0].Organization {
				t.Errorf("seed %d: %s works at the office", seed, a.Email)
			}
		}
	}
}

func TestPickFriends(t *testing.T) {
	person := func(company, language string) chatcore.SeededAccount {
		return chatcore.SeededAccount{Organization: company, Language: language, Email: company + language}
	}
	town := []chatcore.SeededAccount{person("a", "ja"), person("a", "ja"), person("b", "en"), person("c", "en"), person("c", "en"), person("c", "en")}
	for lang, want := range map[string]string{"ja": "a", "en": "c"} {
		one, two := pickFriends(town, lang)
		if one.Organization != want || two.Organization != want || one.Language != lang {
			t.Errorf("%s: %v and %v, want two of %s", lang, one, two, want)
		}
	}
	if one, two := pickFriends(town[:2], "en"); one.Organization != two.Organization {
		t.Errorf("%v and %v do not share a company", one, two)
	}
}
