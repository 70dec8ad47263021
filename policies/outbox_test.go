package policies_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/policies"
)

func notice(key string) policies.Notice {
	return policies.Notice{Key: key, Channel: "webhook", Template: "decision.registered", To: "soc", Values: map[string]string{"value": "203.0.113.7", "reason": "list \"x\"\n"}}
}

func put(t testing.TB, o *policies.Outbox, n policies.Notice, now time.Time) bool {
	t.Helper()
	made, err := o.Put(t.Context(), n, now)
	if err != nil {
		t.Fatalf("putting %s: %v", n.Key, err)
	}
	return made
}

func claimAll(t testing.TB, o *policies.Outbox, owner string, now time.Time) []policies.Notice {
	t.Helper()
	got, err := o.Claim(t.Context(), owner, now, time.Minute, 100)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// told is keys and states, for comparisons.
func told(ns []policies.Notice) []string {
	out := make([]string, len(ns))
	for i, n := range ns {
		out[i] = n.Key + " " + string(n.State)
	}
	return out
}

func TestOutbox(t *testing.T) {
	for _, sc := range []struct {
		name string
		run  func(*testing.T, place)
	}{
		{"a key is kept once and comes back whole", func(t *testing.T, p place) {
			o := p.outbox()
			n := notice("a")
			if !put(t, o, n, noon) || put(t, p.outbox(), notice("a"), noon.Add(time.Hour)) {
				t.Error("want the first kept and the second not")
			}
			got := claimAll(t, o, "one", noon)
			want := n
			want.State, want.Owner, want.Created, want.Attempts, want.Next = policies.Leased, "one", noon, 1, noon.Add(time.Minute)
			if diff := cmp.Diff([]policies.Notice{want}, got, cmpopts.IgnoreFields(policies.Notice{}, "MessageID")); diff != "" {
				t.Fatalf("(-want +got):\n%s", diff)
			}
			if id := got[0].MessageID; len(id) < 30 || !strings.HasPrefix(id, "<") || !strings.HasSuffix(id, "@kidoban>") {
				t.Errorf("message id %q", id)
			}
			again := claimAll(t, p.outbox(), "two", noon.Add(time.Minute))
			if len(again) != 1 || again[0].MessageID != got[0].MessageID || again[0].State != policies.Uncertain || again[0].Attempts != 2 {
				t.Errorf("after the lease: got %+v", again)
			}
		}},
		{"not before its time", func(t *testing.T, p place) {
			o := p.outbox()
			n := notice("later")
			n.Next = noon.Add(time.Minute)
			put(t, o, n, noon)
			if got := claimAll(t, o, "one", noon.Add(time.Minute-time.Microsecond)); len(got) != 0 {
				t.Errorf("got %v before its time", got)
			}
			if got := claimAll(t, o, "one", noon.Add(time.Minute)); len(got) != 1 {
				t.Errorf("got %v at its time", got)
			}
		}},
		{"what was settled is", func(t *testing.T, p place) {
			o, other := p.outbox(), p.outbox()
			for _, key := range []string{"sent", "failed", "doubted", "refused"} {
				put(t, o, notice(key), noon)
			}
			if got := claimAll(t, o, "one", noon); len(got) != 4 {
				t.Fatalf("got %d, want 4", len(got))
			}
			for key, s := range map[string]policies.NoticeState{"sent": policies.Sent, "failed": policies.Pending, "doubted": policies.Uncertain, "refused": policies.GivenUp} {
				for range 2 { // the first may have been uncertain
					if err := o.Settle(t.Context(), key, s, noon.Add(time.Hour), noon); err != nil && (s == policies.Sent || s == policies.GivenUp) {
						t.Error(err)
					}
				}
			}
			if got := claimAll(t, other, "two", noon.Add(time.Hour-time.Microsecond)); len(got) != 0 {
				t.Errorf("got %v before its time", told(got))
			}
			got := claimAll(t, other, "two", noon.Add(time.Hour))
			if diff := cmp.Diff([]string{"doubted uncertain", "failed leased"}, told(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			// A doubt stays.
			if err := other.Settle(t.Context(), "doubted", policies.Pending, noon.Add(2*time.Hour), noon.Add(time.Hour)); err != nil {
				t.Error(err)
			}
			got = claimAll(t, o, "one", noon.Add(2*time.Hour))
			if diff := cmp.Diff([]string{"doubted uncertain", "failed uncertain"}, told(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}},
		{"only the holder settles, but for what was sent", func(t *testing.T, p place) {
			o, other := p.outbox(), p.outbox()
			for _, key := range []string{"a", "b"} {
				put(t, o, notice(key), noon)
			}
			for _, s := range []policies.NoticeState{policies.Sent, policies.Pending, policies.GivenUp} {
				if err := o.Settle(t.Context(), "a", s, time.Time{}, noon); !errors.Is(err, policies.ErrLeaseLost) {
					t.Errorf("%s before it was handed out: got %v, want ErrLeaseLost", s, err)
				}
			}
			claimAll(t, o, "one", noon)
			claimAll(t, other, "two", noon.Add(time.Minute))
			for _, s := range []policies.NoticeState{policies.Pending, policies.Uncertain, policies.GivenUp} {
				if err := o.Settle(t.Context(), "a", s, noon, noon.Add(time.Minute)); !errors.Is(err, policies.ErrLeaseLost) {
					t.Errorf("%s by the former holder: got %v, want ErrLeaseLost", s, err)
				}
			}
			if got := claimAll(t, o, "three", noon.Add(90*time.Second)); len(got) != 0 {
				t.Errorf("a lease that runs was ended: %v", got)
			}
			if err := o.Settle(t.Context(), "b", policies.Sent, time.Time{}, noon.Add(time.Minute)); err != nil {
				t.Errorf("it was sent all the same: %v", err)
			}
			if err := other.Settle(t.Context(), "b", policies.Pending, noon, noon.Add(time.Minute)); !errors.Is(err, policies.ErrLeaseLost) {
				t.Errorf("pending after it was sent: got %v, want ErrLeaseLost", err)
			}
			if err := o.Settle(t.Context(), "nothing", policies.Sent, noon, noon); !errors.Is(err, policies.ErrLeaseLost) {
				t.Errorf("of none: got %v", err)
			}
			if err := o.Settle(t.Context(), "a", policies.Leased, noon, noon); err == nil || errors.Is(err, policies.ErrLeaseLost) {
				t.Errorf("as leased: got %v", err)
			}
		}},
		{"beyond the bound all are counted", func(t *testing.T, p place) {
			o := p.outbox()
			put(t, o, notice("kept"), noon)
			if err := o.Crowd(t.Context(), policies.MaxOpen-2); err != nil {
				t.Fatal(err)
			}
			put(t, o, notice("last"), noon)
			for i := range 25 {
				if put(t, o, notice(fmt.Sprint("lost ", i)), noon) {
					t.Error("kept beyond the bound")
				}
			}
			mail := notice("lost mail")
			mail.Channel = "mail"
			put(t, o, mail, noon)
			put(t, o, notice("kept"), noon) // not lost
			got := claimAll(t, o, "one", noon.Add(time.Minute))
			counts := map[string]string{}
			for _, n := range got {
				if n.Template == policies.OverflowTemplate {
					counts[n.Channel] = n.Values["channel"] + " " + n.Values["count"] + " to:" + n.To
				}
			}
			if diff := cmp.Diff(map[string]string{"webhook": "webhook 25 to:", "mail": "mail 1 to:"}, counts); diff != "" || len(got) != 4 {
				t.Errorf("%d notices (-want +got):\n%s", len(got), diff)
			}
			// What was handed out counts no further.
			put(t, o, notice("lost again"), noon.Add(time.Minute))
			next := claimAll(t, o, "one", noon.Add(2*time.Minute-time.Microsecond))
			if len(next) != 0 {
				t.Errorf("got %v before its time", told(next))
			}
			for _, n := range got {
				if err := o.Settle(t.Context(), n.Key, policies.Sent, time.Time{}, noon.Add(90*time.Second)); err != nil {
					t.Error(err)
				}
			}
			next = claimAll(t, o, "one", noon.Add(2*time.Minute))
			if len(next) != 1 || next[0].Values["count"] != "1" {
				t.Errorf("got %+v, want one that counts 1", next)
			}
			if !put(t, o, notice("fits"), noon) {
				t.Error("there was room again")
			}
		}},
		{"lists are paged and filtered, counted and purged", func(t *testing.T, p place) {
			o := p.outbox()
			for i := range 6 {
				n := notice(fmt.Sprint("n", i))
				if i%2 == 1 {
					n.Channel, n.To = "mail", "a@example.com"
				}
				put(t, o, n, noon.Add(time.Duration(i/2)*time.Second)) // two at a time
			}
			for _, n := range claimAll(t, o, "one", noon) { // n0 and n1
				if err := o.Settle(t.Context(), n.Key, policies.Sent, time.Time{}, noon.Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
			for _, tc := range []struct {
				f    policies.NoticeFilter
				want string
			}{
				{policies.NoticeFilter{}, "n5 n4 n3 n2 n1 n0"},
				{policies.NoticeFilter{State: policies.Pending}, "n5 n4 n3 n2"},
				{policies.NoticeFilter{Channel: "mail"}, "n5 n3 n1"},
				{policies.NoticeFilter{To: "soc", State: policies.Sent, Template: "decision.registered"}, "n0"},
				{policies.NoticeFilter{Template: "x"}, ""},
			} {
				for _, limit := range []int{0, 1, 2, 3} {
					var keys []string
					cursor := ""
					for range 10 {
						page, next, err := o.List(t.Context(), tc.f, cursor, limit)
						if err != nil {
							t.Fatal(err)
						}
						for _, n := range page {
							keys = append(keys, n.Key)
						}
						if cursor = next; next == "" {
							break
						}
					}
					if got := strings.Join(keys, " "); got != tc.want {
						t.Errorf("%+v, %d a page: got %q, want %q", tc.f, limit, got, tc.want)
					}
				}
			}
			wantCounts := func(want map[policies.NoticeState]int) {
				t.Helper()
				got, err := o.Counts(t.Context())
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
			}
			wantCounts(map[policies.NoticeState]int{policies.Pending: 4, policies.Sent: 2})
			for _, tc := range []struct {
				before time.Time
				want   int
			}{{noon.Add(time.Hour), 0}, {noon.Add(time.Hour + time.Microsecond), 2}, {noon.Add(1000 * time.Hour), 0}} {
				if n, err := o.Purge(t.Context(), tc.before); err != nil || n != tc.want {
					t.Errorf("purging before %v: got %d, %v, want %d", tc.before, n, err, tc.want)
				}
			}
			wantCounts(map[policies.NoticeState]int{policies.Pending: 4})
		}},
		{"faults are told", func(t *testing.T, p place) {
			o := p.outbox()
			for field, change := range map[string]func(*policies.Notice){
				"key":      func(n *policies.Notice) { n.Key = "" },
				"channel":  func(n *policies.Notice) { n.Channel = "a\nb" },
				"template": func(n *policies.Notice) { n.Template = "\xff" },
				"to":       func(n *policies.Notice) { n.To = strings.Repeat("x", 257) },
				"values":   func(n *policies.Notice) { n.Values = map[string]string{"a": strings.Repeat("x", 16384)} },
			} {
				n := notice("a")
				change(&n)
				var faults policies.FieldErrors
				if _, err := o.Put(t.Context(), n, noon); !errors.As(err, &faults) || len(faults) != 1 || faults[0].Field != field {
					t.Errorf("%s: got %v", field, err)
				}
			}
			for _, cursor := range []string{"x", "1", "1/\x00"} {
				_, _, err := o.List(t.Context(), policies.NoticeFilter{}, cursor, 0)
				if cursor != "1" && err == nil {
					t.Errorf("cursor %q: no error", cursor)
				}
			}
			for _, f := range []policies.NoticeFilter{{State: "x"}, {To: "\x00"}} {
				if _, _, err := o.List(t.Context(), f, "", 0); err == nil {
					t.Errorf("%+v: no error", f)
				}
			}
			if _, err := o.Claim(t.Context(), "", noon, time.Minute, 1); err == nil {
				t.Error("claimed by nobody")
			}
			if _, err := o.Claim(t.Context(), "one", noon, 0, 1); err == nil {
				t.Error("claimed without a lease")
			}
		}},
		{"claimers at once never share", func(t *testing.T, p place) {
			const notices, claimers = 120, 4
			o := p.outbox()
			for i := range notices {
				put(t, o, notice(fmt.Sprint(i)), noon)
			}
			var mu sync.Mutex
			seen := map[string]int{}
			var wg sync.WaitGroup
			for c := range claimers {
				wg.Go(func() {
					o := p.outbox()
					for {
						got, err := o.Claim(t.Context(), fmt.Sprint(c), noon, time.Minute, 7)
						if err != nil {
							t.Error(err)
						}
						if len(got) == 0 || len(got) > 7 {
							if len(got) > 7 {
								t.Errorf("got %d, want at most 7", len(got))
							}
							return
						}
						mu.Lock()
						for _, n := range got {
							seen[n.Key]++
						}
						mu.Unlock()
						for _, n := range got {
							if err := o.Settle(t.Context(), n.Key, policies.Sent, time.Time{}, noon); err != nil {
								t.Error(err)
							}
						}
					}
				})
				wg.Go(func() { // and somebody puts more
					for i := range 5 {
						n := notice(fmt.Sprint("more ", c, i))
						n.Next = noon.Add(time.Hour)
						if _, err := o.Put(t.Context(), n, noon); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			// SKIP LOCKED may have shown a claimer nothing while others held the rest.
			for _, n := range claimAll(t, o, "rest", noon) {
				seen[n.Key]++
			}
			if len(seen) != notices || slices.Max(slices.Collect(maps.Values(seen))) != 1 {
				t.Errorf("%d notices were handed out, one of them %d times; want %d once", len(seen), slices.Max(slices.Collect(maps.Values(seen))), notices)
			}
		}},
	} {
		for _, name := range places {
			t.Run(sc.name+"/"+name, func(t *testing.T) { sc.run(t, openPlace(t, name)) })
		}
	}
}

// TestOutboxModel has two nodes put, claim, settle, crash and wait in any order.
// Every notice is handed out until it is settled for good and never after; never to
// two while a lease runs; and marked from the moment that an earlier attempt may
// have arrived.
func TestOutboxModel(t *testing.T) {
	for _, name := range places {
		t.Run(name, func(t *testing.T) {
			fewerChecks(t, name, "15")
			p := openPlace(t, name)
			rapid.Check(t, func(t *rapid.T) { outboxModel(t, &p) })
		})
	}
}

// intent is a notice as the model knows it.
type intent struct {
	id      string
	due     time.Time
	ended   bool
	doubt   bool // an earlier attempt may have arrived
	holder  int  // node that was handed it last and has not settled it; -1: none
	attempt int
}

func outboxModel(t *rapid.T, p *place) {
	p.clear(t)
	now := noon
	nodes := []*policies.Outbox{p.outbox(), p.outbox()}
	intents := map[string]*intent{}
	holds := []map[string]int{{}, {}} // what each node believes to hold, by attempt
	ends := []map[string]time.Time{{}, {}}
	keys := func(of map[string]int) []string { return slices.Sorted(maps.Keys(of)) }
	t.Repeat(map[string]func(*rapid.T){
		"put": func(t *rapid.T) {
			key := fmt.Sprint("k", rapid.IntRange(0, 9).Draw(t, "key"))
			made, err := nodes[rapid.IntRange(0, 1).Draw(t, "node")].Put(t.Context(), notice(key), now)
			if err != nil || made != (intents[key] == nil) {
				t.Fatalf("putting %s: got %v, %v", key, made, err)
			}
			if made {
				intents[key] = &intent{due: now, holder: -1}
			}
		},
		"claim": func(t *rapid.T) {
			i := rapid.IntRange(0, 1).Draw(t, "node")
			limit := rapid.IntRange(1, 5).Draw(t, "limit")
			lease := time.Duration(rapid.IntRange(1, 5).Draw(t, "lease")) * time.Minute
			got, err := nodes[i].Claim(t.Context(), fmt.Sprint("node ", i), now, lease, limit)
			if err != nil {
				t.Fatal(err)
			}
			due := 0
			for _, n := range intents {
				if !n.ended && !n.due.After(now) {
					due++
				}
			}
			if len(got) != min(due, limit) {
				t.Fatalf("got %d notices, want %d of %d that are due", len(got), min(due, limit), due)
			}
			for _, g := range got {
				n := intents[g.Key]
				switch {
				case n == nil || n.ended:
					t.Fatalf("%s was handed out and is over", g.Key)
				case n.due.After(now):
					t.Fatalf("%s was handed out before %v, when it is due or its lease ends", g.Key, n.due)
				case n.id != "" && n.id != g.MessageID:
					t.Fatalf("%s has another message id", g.Key)
				}
				n.doubt = n.doubt || n.holder >= 0
				if (g.State == policies.Uncertain) != n.doubt {
					t.Fatalf("%s is %s, in doubt: %v", g.Key, g.State, n.doubt)
				}
				n.attempt++
				if g.Attempts != n.attempt {
					t.Fatalf("%s: attempt %d, want %d", g.Key, g.Attempts, n.attempt)
				}
				n.id, n.holder, n.due = g.MessageID, i, now.Add(lease)
				holds[i][g.Key], ends[i][g.Key] = n.attempt, now.Add(lease)
			}
		},
		"settle": func(t *rapid.T) {
			i := rapid.IntRange(0, 1).Draw(t, "node")
			if len(holds[i]) == 0 {
				t.Skip("it holds nothing")
			}
			key := rapid.SampledFrom(keys(holds[i])).Draw(t, "key")
			n := intents[key]
			late := now.After(ends[i][key].Add(time.Hour)) // a holder has an hour beyond its lease
			s := rapid.SampledFrom([]policies.NoticeState{policies.Sent, policies.Pending, policies.Uncertain, policies.GivenUp}).Draw(t, "state")
			next := now.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "next")) * time.Minute)
			mine := !late && !n.ended && n.holder == i && holds[i][key] == n.attempt
			err := nodes[i].Settle(t.Context(), key, s, next, now)
			switch {
			case mine || s == policies.Sent && !n.ended:
				if err != nil {
					t.Fatalf("settling %s as %s: %v", key, s, err)
				}
				n.holder = -1
				switch s {
				case policies.Sent, policies.GivenUp:
					n.ended = true
				default:
					n.due, n.doubt = next, n.doubt || s == policies.Uncertain
				}
			case err != nil && !errors.Is(err, policies.ErrLeaseLost):
				t.Fatal(err)
			case err == nil && !n.ended:
				t.Fatalf("%s was settled as %s by one who does not hold it", key, s)
			}
			delete(holds[i], key)
		},
		"crash": func(t *rapid.T) {
			i := rapid.IntRange(0, 1).Draw(t, "node")
			nodes[i], holds[i] = p.outbox(), map[string]int{}
		},
		"wait": func(t *rapid.T) {
			now = now.Add(time.Duration(rapid.IntRange(1, 6).Draw(t, "minutes")) * time.Minute)
		},
		"": func(*rapid.T) {},
	})
	// In the end, whatever is not over is handed out once more.
	now = now.Add(time.Hour)
	open := 0
	for _, n := range intents {
		if !n.ended {
			open++
		}
	}
	got, err := nodes[0].Claim(t.Context(), "last", now, time.Minute, 100)
	if err != nil || len(got) != open {
		t.Fatalf("in the end %d were handed out, %v; want %d", len(got), err, open)
	}
}

func TestBackoff(t *testing.T) {
	for _, tc := range []struct {
		attempt int
		most    time.Duration
	}{{-1, 5 * time.Second}, {1, 5 * time.Second}, {2, 10 * time.Second}, {5, 80 * time.Second}, {10, 2560 * time.Second}, {11, time.Hour}, {12, time.Hour}, {1 << 40, time.Hour}} {
		most := policies.BackoffWith(tc.attempt, func(n int64) int64 { return n - 1 })
		least := policies.BackoffWith(tc.attempt, func(int64) int64 { return 0 })
		if most != tc.most || least != 0 {
			t.Errorf("attempt %d: got %v to %v, want 0 to %v", tc.attempt, least, most, tc.most)
		}
	}
	n := policies.Notice{Created: noon, Attempts: 7}
	r := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		now := noon.Add(time.Duration(r.Int64N(int64(policies.GiveUpAfter - time.Hour))))
		if s, next := n.Retry(now); s != policies.Pending || next.Before(now) || next.Sub(now) > 320*time.Second {
			t.Fatalf("at %v: got %s, %v", now, s, next)
		}
	}
	if s, _ := n.Retry(noon.Add(policies.GiveUpAfter + time.Microsecond)); s != policies.GivenUp {
		t.Errorf("after three days: got %s", s)
	}
}

func FuzzNoticeCursor(f *testing.F) {
	for _, s := range []string{"", "1/a", "-1/", "9223372036854775807/\x00", "x/y/z"} {
		f.Add(s)
	}
	o := policies.NewMemoryStore().Outbox()
	f.Fuzz(func(t *testing.T, cursor string) {
		var faults policies.FieldErrors
		if _, next, err := o.List(t.Context(), policies.NoticeFilter{}, cursor, 1); next != "" || err != nil && !errors.As(err, &faults) {
			t.Errorf("got %q, %v", next, err)
		}
	})
}
