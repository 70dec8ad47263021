package main

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

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
