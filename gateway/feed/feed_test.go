package feed_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/feed"
)

// now is when the logs of these tests are read.
var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// read returns the attempts of a log as text, and what was told.
func read(t testing.TB, log io.Reader, format string, o feed.Options) (all []feed.Attempt, told []string, counts feed.Counts) {
	t.Helper()
	o.Fault = func(line int, err error) { told = append(told, fmt.Sprintf("%d: %v", line, err)) }
	if o.Now.IsZero() {
		o.Now = now
	}
	r, err := feed.Open(log, format, o)
	if err != nil {
		t.Fatal(err)
	}
	for {
		a, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, told, r.Counts()
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
}

// short writes what matters of an attempt.
func short(a feed.Attempt) string {
	e := a.Event
	s := fmt.Sprintf("%s %s %s %s %s correct=%s exists=%s", a.ID, e.Time.UTC().Format("2006-01-02T15:04:05.999999999"), e.Source.Address, e.Outcome, e.Name.Display, a.Correct, a.Exists)
	add := func(name, value string) {
		if value != "" && value != "0" && value != "false" {
			s += " " + name + "=" + value
		}
	}
	add("port", fmt.Sprint(e.Source.Port))
	add("asn", fmt.Sprint(e.Source.ASN))
	add("country", e.Source.Country)
	add("account", string(e.Account))
	add("organization", string(e.Organization))
	add("device", e.Device.ID)
	add("state", string(e.Device.State))
	add("client", e.Fingerprint)
	add("credential", e.Credential)
	add("typo", fmt.Sprint(a.TypoOf))
	add("breached", fmt.Sprint(e.Password.Breached))
	add("popularity", fmt.Sprint(e.Password.Popularity))
	if !e.AccountSince.IsZero() {
		add("since", e.AccountSince.UTC().Format(time.RFC3339))
	}
	if e.Kind != detectors.Login {
		add("kind", string(e.Kind))
		add("route", string(e.Route))
		add("session", e.Session)
		add("act", string(e.Act))
		add("actor", e.Actor)
		add("unproven", fmt.Sprint(e.Unproven))
		add("size", fmt.Sprint(e.Size))
		add("targets", fmt.Sprint(e.Targets))
		add("ambiguous", fmt.Sprint(e.Ambiguous))
	}
	return s
}

func TestLogs(t *testing.T) {
	for _, c := range []struct {
		file, format string
		o            feed.Options
	}{
		{"office.jsonl", "jsonl", feed.Options{}},
		{"events.jsonl", "jsonl", feed.Options{AllKinds: true}},
		{"auth.log", "sshd", feed.Options{}},
		{"rfc3339.log", "sshd", feed.Options{}},
		{"access.log", "caddy", feed.Options{Routes: []string{"POST /login", "* /api/token/*"}}},
	} {
		t.Run(c.file, func(t *testing.T) {
			f, err := os.Open("testdata/" + c.file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			all, told, counts := read(t, f, c.format, c.o)
			var got strings.Builder
			for _, a := range all {
				fmt.Fprintln(&got, short(a))
			}
			for _, line := range told {
				fmt.Fprintln(&got, "told", line)
			}
			fmt.Fprintf(&got, "%+v\n", counts)
			golden := "testdata/" + c.file + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}
