package feed_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/feed"
)

// fuzz reads any bytes as a log. Whatever they are: no panic; every line is an attempt,
// something else or a fault; attempts come in the order of time and are told apart; what
// is kept of one is bounded; and reading again gives the same.
func fuzz(f *testing.F, file, format string, o feed.Options) {
	log, err := os.ReadFile("testdata/" + file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(log)
	for line := range bytes.Lines(log) {
		f.Add(line)
	}
	f.Add([]byte("\ufeff\r\n\x00\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		all, told, counts := read(t, bytes.NewReader(log), format, o)
		numbers := map[uint64]bool{}
		ids := map[string]bool{}
		for i, a := range all {
			e := a.Event
			if !json.Valid(a.ID) || len(a.ID) > 256 || a.Line < 1 || a.Line > counts.Lines {
				t.Fatalf("attempt %d: id %q, line %d of %d", i, a.ID, a.Line, counts.Lines)
			}
			if format != "jsonl" && ids[string(a.ID)] || numbers[a.Number] {
				t.Fatalf("attempt %d: id %s, number %d came before", i, a.ID, a.Number)
			}
			ids[string(a.ID)], numbers[a.Number] = true, true
			if i > 0 && e.Time.Before(all[i-1].Event.Time) {
				t.Fatalf("attempt %d at %s comes after one at %s", i, e.Time, all[i-1].Event.Time)
			}
			if e.Time.Unix() < 0 || !e.Time.Equal(e.StreamTime) {
				t.Fatalf("attempt %d: time %s, stream time %s", i, e.Time, e.StreamTime)
			}
			for _, text := range []string{string(e.Account), string(e.Organization), e.Device.ID, e.Client.JA4, e.Client.Family, e.Client.Headers, e.Key.Node, e.Credential, e.Session, string(e.Act), e.Actor, string(e.Route)} {
				if len(text) > 300 {
					t.Fatalf("attempt %d keeps %d bytes: %.40q", i, len(text), text)
				}
			}
			if n := len(e.Name.Display); n > 4*320 {
				t.Fatalf("attempt %d keeps a name of %d bytes", i, n)
			}
			if e.Source.Address.IsValid() != e.Source.Network.IsValid() || e.Source.Address.Zone() != "" || e.Source.Address.Is4In6() {
				t.Fatalf("attempt %d is from %s in %s", i, e.Source.Address, e.Source.Network)
			}
			if e.Kind == "" || e.Outcome == "" || e.Size < 0 || e.Targets < 0 || !o.AllKinds && e.Kind != detectors.Login {
				t.Fatalf("attempt %d is %+v", i, e)
			}
			if _, err := json.Marshal(e); err != nil {
				t.Fatalf("attempt %d: %v", i, err)
			}
		}
		if len(all) != counts.Attempts || len(told) != counts.Faults+counts.Doubts {
			t.Fatalf("%d attempts, %d told, %+v", len(all), len(told), counts)
		}
		again, _, _ := read(t, bytes.NewReader(log), format, o)
		for i := range all {
			if short(all[i]) != short(again[i]) {
				t.Fatalf("attempt %d: first %s, then %s", i, short(all[i]), short(again[i]))
			}
		}
	})
}

func FuzzJSONL(f *testing.F) { fuzz(f, "office.jsonl", "jsonl", feed.Options{}) }

func FuzzEvents(f *testing.F) { fuzz(f, "events.jsonl", "jsonl", feed.Options{AllKinds: true}) }

func FuzzSSHD(f *testing.F) { fuzz(f, "auth.log", "sshd", feed.Options{}) }

func FuzzCaddy(f *testing.F) {
	fuzz(f, "access.log", "caddy", feed.Options{Routes: []string{"* *"}})
}
