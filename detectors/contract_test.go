package detectors_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kidoban/kidoban/detectors"
)

var update = flag.Bool("update", false, "write golden files and generated parts of README.md")

var monday = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func fullEvent() detectors.Event {
	return detectors.Event{
		Key:          detectors.EventKey{Node: "tokyo-1", Incarnation: 3, Sequence: 42},
		StreamTime:   monday.Add(time.Second),
		Time:         monday,
		Kind:         detectors.Login,
		Name:         detectors.Name{Digest: detectors.Digest{1, 2, 3, 15: 255}, Display: "hanako@acme.example"},
		Account:      "u-1001",
		AccountSince: monday.AddDate(0, -3, 0),
		Organization: "acme",
		Session:      "s-7",
		Source: detectors.Source{
			Address: netip.MustParseAddr("2001:db8:1:2::7"), Network: netip.MustParsePrefix("2001:db8:1:2::/64"),
			Port: 50123, ASN: 64500, Country: "JP", Shared: true,
		},
		Device:      detectors.Device{ID: "d-9", State: detectors.Trusted},
		Fingerprint: "t13d1516h2_8daaf6152771_b186095e22b6",
		Route:       detectors.LoginRoute,
		Credential:  "session",
		Outcome:     detectors.Refused,
		Reason:      "rule",
		Password:    detectors.PasswordFacts{Repeat: true, Typo: true, Breached: true, Popularity: 44},
		Ambiguous:   true,
		Size:        512,
		Targets:     3,
		Act:         detectors.Minted,
		Actor:       "operator:sato",
	}
}

func TestEventsAndSignalsKeepTheirForm(t *testing.T) {
	for name, v := range map[string]any{
		"event-full.json": fullEvent(),
		"event-zero.json": detectors.Event{},
		"signals.json": []detectors.Signal{
			{Name: "source.sequential", Value: 9.55, Why: "8 different names failed from 203.0.113.7, 0 succeeded"},
			{Name: "source.flagged", Value: 1},
			{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := json.MarshalIndent(v, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, append(b, '\n'))
		})
	}
}

func TestEventsSurviveJSON(t *testing.T) {
	for name, want := range map[string]detectors.Event{"full": fullEvent(), "zero": {}} {
		t.Run(name, func(t *testing.T) {
			b, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			var got detectors.Event
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func FuzzDigestText(f *testing.F) {
	for _, s := range []string{"", "00", "0102030000000000000000000000" + "00ff", strings.Repeat("F", 32), strings.Repeat("g", 32)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var d detectors.Digest
		if d.UnmarshalText([]byte(s)) != nil || d.IsZero() {
			return
		}
		if got := d.String(); got != strings.ToLower(s) {
			t.Errorf("%q came back as %q", s, got)
		}
	})
}

// The signals table of README.md is made from the catalogue.
func TestReadmeListsTheCatalogue(t *testing.T) {
	var b strings.Builder
	b.WriteString("| signal | unit | range | meaning |\n|---|---|---|---|\n")
	for _, d := range detectors.Default(time.Time{}).Catalog() {
		bounds := fmt.Sprintf("%g to %g", d.Min, d.Max)
		if d.Min == 0 && d.Max == 0 {
			bounds = "0 and up"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Name, d.Unit, bounds, d.Meaning)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- signals -->\n", "<!-- /signals -->"
	head, rest, ok := bytes.Cut(readme, []byte(begin))
	got, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		t.Fatalf("README.md: want a table between %q and %q", begin, end)
	}
	if *update {
		if err := os.WriteFile("README.md", []byte(string(head)+begin+b.String()+end+string(tail)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(b.String(), string(got)); diff != "" {
		t.Errorf("README.md differs from the catalogue; run go test -update (-want +got):\n%s", diff)
	}
}
