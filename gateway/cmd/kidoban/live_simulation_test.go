package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/gateway/dry"
	"github.com/kidoban/kidoban/gateway/guard"
)

// liveScale is a shipped scenario made small enough for a town of a few hundred people
// and a few seconds.
type liveScale struct {
	id       string
	people   int
	attempts int           // of the attack
	length   time.Duration // of the attack
	compress float64
}

func (l liveScale) scenario(t *testing.T) simulate.Scenario {
	t.Helper()
	data, err := fs.ReadFile(simulate.Shipped, l.id+".yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := simulate.Decode(l.id, data)
	if err != nil {
		t.Fatal(err)
	}
	s.Town.People, s.Town.Companies, s.Town.New, s.Town.Thin = l.people, 3, 0, 1
	s.Town.PerDay, s.Town.Carrier = min(100, s.Town.PerDay*20), 0
	s.Warm = simulate.Span(l.length / 4)
	for i := range s.Crowds {
		c := &s.Crowds[i]
		c.People = min(c.People, l.people-1)
	}
	for i := range s.Raids {
		r := &s.Raids[i]
		r.From, r.Length = simulate.Span(l.length/20), simulate.Span(l.length)
		r.Sources = max(1, r.Sources*l.attempts/r.Attempts)
		r.Attempts, r.Hit = l.attempts, max(r.Hit, 0.02)
	}
	s.Length = simulate.Span(l.length + l.length/10)
	return s
}

// TestLiveAgrees plays the same stories through the program over HTTP and through the
// gate without a network, and wants the same of both.
func TestLiveAgrees(t *testing.T) {
	for _, tt := range []liveScale{
		{"a1", 200, 1000, 3 * time.Minute, 30},
		{"a2", 200, 1000, 5 * time.Minute, 50},
		{"a4-12", 200, 1500, 30 * time.Minute, 200},
		{"b1", 400, 0, 15 * time.Minute, 150},
	} {
		t.Run(tt.id, func(t *testing.T) {
			t.Parallel()
			s := tt.scenario(t)
			backend := newTown(t, tt.people+50)
			n := newNode(t, "live", backend)
			data := filepath.Join(n.dir, "data")
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			cookies, err := livePast(t.Context(), data, backend.people, nil, 1, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			n.start()
			accounts := accountsOf(backend.people)
			for i := range accounts {
				if c := cookies[accounts[i].Name]; c != nil {
					accounts[i].Cookies = []*http.Cookie{c}
				}
			}
			const seed = 11
			live := simulate.Live{Entry: simulate.Entry{URL: "http://" + n.site}, Accounts: accounts, DeviceCookie: guard.DeviceCookie, Compress: tt.compress}
			began := time.Now()
			got, err := live.Run(t.Context(), s, seed)
			if err != nil {
				t.Fatalf("%v\n%s", err, n.said())
			}
			took := time.Since(began)
			g, err := dry.New(dry.Config{LearningUntil: s.Start.AddDate(1, 0, 0)}) // the program was just installed
			if err != nil {
				t.Fatal(err)
			}
			want, err := simulate.Run(context.Background(), s, seed, "virtual", simulate.AsLive(dry.Simulated{Gate: g}, s, tt.compress))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%v for %d attempts", took.Round(time.Millisecond), got.Events)
			t.Logf("live:    %s", figures(got))
			t.Logf("virtual: %s", figures(want))
			if l, v := recall(got), recall(want); math.Abs(l-v) > 5 {
				t.Errorf("live caught %.1f%% and the virtual gate %.1f%%: they differ by more than 5 points", l, v)
			}
			if refused := got.People.All.Refused; refused != 0 && len(s.Raids) == 0 {
				_, report, err := n.call(http.MethodGet, "/v1/report", nil)
				t.Errorf("%d people of %s were refused, want none: %s %v", refused, tt.id, report, err)
			}
			if got.People.All.LogIns == 0 || got.Attack.Attempts < tt.attempts/2 {
				t.Errorf("the scenario tests nothing: %s", figures(got))
			}
		})
	}
}

// recall is the share of attempts that were caught, in per cent.
func recall(r simulate.Result) float64 {
	return 100 * float64(r.Attack.Caught) / float64(max(1, r.Attack.Attempts))
}

func figures(r simulate.Result) string {
	first := -1
	if r.Attack.First != nil {
		first = *r.Attack.First
	}
	a, p := r.Attack, r.People.All
	return fmt.Sprintf("%d of %d caught, %d of %d accounts lost, first after %d; %d good log-ins, %d stepped up, %d refused, %d delayed",
		a.Caught, a.Attempts, a.Lost, a.Hits, first, p.LogIns, p.SteppedUp, p.Refused, p.Delayed)
}

// TestSimulateLive runs the command against a gate that runs.
func TestSimulateLive(t *testing.T) {
	t.Parallel()
	backend := newTown(t, 130)
	n := newNode(t, "live", backend)
	n.start()
	var list bytes.Buffer
	if err := chatcore.WriteAccounts(&list, backend.people); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"accounts.csv": list.String(), "small.yaml": `
id: small
title: {en: small, ja: small}
story: {en: small, ja: small}
form: plain
start: 2026-11-30T09:00:00+09:00
length: 10m
town: {people: 100, companies: 3, log_ins: 4, flat: true, carrier: 0}
attacks:
  - {kind: list, from: 1m, length: 8m, attempts: 100, sources: 1, network: hosting, client: tool, hit: 0.1}
`} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		out, _ := kidoban(n.dir, append([]string{"simulate", "run", "./small.yaml", "--live", "http://" + n.site, "--compress", "300"}, args...)...)
		return string(out)
	}
	for want, args := range map[string][]string{
		"--live needs --accounts":                {"--seeds", "1"},
		"2 runs: --live plays one":               {"--seeds", "1-2", "--accounts", "accounts.csv"},
		"no certificate in it":                   {"--seeds", "1", "--accounts", "accounts.csv", "--authority", "small.yaml"},
		"small.yaml is not as the demo wrote it": {"--seeds", "1", "--accounts", "small.yaml"},
	} {
		if got := run(args...); !strings.Contains(got, want) {
			t.Errorf("%v: got %s, want it to say %q", args, got, want)
		}
	}
	got := run("--seeds", "1", "--accounts", "accounts.csv", "--json")
	var report struct {
		Results []simulate.Result `json:"results"`
	}
	_, text, _ := strings.Cut(got, "{")
	if err := json.NewDecoder(strings.NewReader("{" + text)).Decode(&report); err != nil || len(report.Results) != 1 {
		t.Fatalf("%v: got %.2000s", err, got)
	}
	if r := report.Results[0]; r.Attack.Attempts != 100 || recall(r) < 85 || r.Attack.Lost > 3 || r.People.All.Refused > 0 {
		t.Errorf("got %s", figures(r))
	}
}
