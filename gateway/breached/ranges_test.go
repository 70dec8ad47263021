package breached_test

import (
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/breached"
)

// server is a range API that lists passwords.
type server struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Pointer[func(http.ResponseWriter, *http.Request) bool] // nil, or not true: the list's
}

func newServer(t *testing.T, passwords ...string) *server {
	s := new(server)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if answer := s.answer.Load(); answer != nil && (*answer)(w, r) {
			return
		}
		prefix, ok := strings.CutPrefix(r.URL.Path, "/api/range/")
		if !ok || len(prefix) != 5 || r.Header.Get("Add-Padding") != "true" || r.Header.Get("User-Agent") != "kidoban" || r.URL.RawQuery != "" {
			t.Errorf("asked %s %q", r.URL, r.Header)
		}
		for _, p := range passwords {
			if entry := line(p, 3); entry[:5] == prefix {
				fmt.Fprint(w, entry[5:])
			}
		}
		fmt.Fprintf(w, "%s:0\r\n", line("padding", 0)[5:40])
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) answers(f func(http.ResponseWriter, *http.Request) bool) { s.answer.Store(&f) }

// clock is a time that a test sets.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1_790_000_000, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }
func ranges(t *testing.T, s *server, c *clock) *breached.Ranges {
	t.Helper()
	r, err := breached.NewRanges(s.URL+"/api/", c.now)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWait(time.Minute) // of a loaded machine; what is late has a test of its own
	return r
}

func ask(r *breached.Ranges, password string) (bool, error) {
	return r.Contains(context.Background(), sha1.Sum([]byte(password)))
}

func TestRanges(t *testing.T) {
	var c clock
	s := newServer(t, "hunter2")
	r := ranges(t, s, &c)
	for range 3 {
		if found, err := ask(r, "hunter2"); !found || err != nil {
			t.Fatalf("a listed password: %v, %v", found, err)
		}
	}
	if found, err := ask(r, "padding"); found || err != nil {
		t.Errorf("what pads an answer: %v, %v", found, err)
	}
	if n := s.asked.Load(); n != 2 {
		t.Errorf("asked %d times for two ranges", n)
	}
	c.advance(24*time.Hour - 1)
	_, _ = ask(r, "hunter2")
	if n := s.asked.Load(); n != 2 {
		t.Errorf("asked %d times within a day, want 2", n)
	}
	c.advance(1)
	_, _ = ask(r, "hunter2")
	if n := s.asked.Load(); n != 3 {
		t.Errorf("asked %d times after a day, want 3", n)
	}
}

// TestRangesCacheIsBounded: the range used last stays, the oldest goes.
func TestRangesCacheIsBounded(t *testing.T) {
	var c clock
	s := newServer(t)
	s.answers(func(http.ResponseWriter, *http.Request) bool { return true })
	r := ranges(t, s, &c)
	sum := func(i int) (sum [20]byte) { binary.BigEndian.PutUint32(sum[:], uint32(i)<<12); return }
	for i := range 2100 {
		for _, n := range []int{i, 0} {
			if _, err := r.Contains(t.Context(), sum(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := r.Cached(); n != 2048 {
		t.Errorf("%d ranges are kept, want 2048", n)
	}
	if n := s.asked.Load(); n != 2100 {
		t.Errorf("asked %d times, want 2100: range 0 was always among the last", n)
	}
	if _, _ = r.Contains(t.Context(), sum(1)); s.asked.Load() != 2101 {
		t.Error("the oldest range was kept")
	}
}

func TestRangesFail(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"status":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"html":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>log in to this network</html>") },
		"no end":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("\r\n", 1<<18)) },
		"long":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("0", 1<<12)) },
		"many": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.Repeat(strings.Repeat("0", 35)+":1\n", 5000))
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, strings.Repeat("0", 35)+":1\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			var c clock
			s := newServer(t)
			s.answers(func(w http.ResponseWriter, r *http.Request) bool { answer(w, r); return true })
			r := ranges(t, s, &c)
			found, err := ask(r, "hunter2")
			if found || err == nil {
				t.Fatalf("= %v, %v, want an error", found, err)
			}
			if prefix := line("hunter2", 1)[:5]; strings.Contains(err.Error(), prefix) {
				t.Errorf("the error %q tells what was asked", err)
			}
			if r.Status().Why == "" {
				t.Error("the failure is not told")
			}
		})
	}
}

// TestRangesAreLeftAlone: after five failures no question goes out but one at a time,
// later and later; one that works ends that.
func TestRangesAreLeftAlone(t *testing.T) {
	var c clock
	s := newServer(t, "hunter2")
	s.answers(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true })
	r := ranges(t, s, &c)
	for range 20 {
		_, _ = ask(r, "hunter2")
	}
	if n := s.asked.Load(); n != 5 || !r.Status().Open {
		t.Fatalf("asked %d times, open %v, want 5 and open", n, r.Status().Open)
	}
	total := int64(5)
	for _, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		c.advance(wait - 1)
		_, _ = ask(r, "hunter2")
		if n := s.asked.Load(); n != total {
			t.Fatalf("asked before %v had passed", wait)
		}
		c.advance(1)
		for range 3 {
			_, _ = ask(r, "hunter2")
		}
		if total++; s.asked.Load() != total {
			t.Fatalf("asked %d times after %v, want %d", s.asked.Load(), wait, total)
		}
	}
	s.answer.Store(nil)
	c.advance(time.Minute)
	if found, err := ask(r, "hunter2"); !found || err != nil || r.Status() != (breached.Asked{}) {
		t.Errorf("once it works: %v, %v, %+v", found, err, r.Status())
	}
}

// TestRangesAreLate: nobody waits longer than agreed, nor does who went away count
// against the server, and no more than 16 ask at once.
func TestRangesAreLate(t *testing.T) {
	var c clock
	s := newServer(t)
	arrived := make(chan struct{}, 32)
	s.answers(func(_ http.ResponseWriter, r *http.Request) bool {
		arrived <- struct{}{}
		<-r.Context().Done()
		return true
	})
	late := ranges(t, s, &c)
	late.SetWait(time.Millisecond)
	if _, err := ask(late, "hunter2"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a late answer = %v", err)
	}

	r := ranges(t, s, &c)
	for len(arrived) > 0 {
		<-arrived
	}
	ctx, leave := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for i := range 16 {
		asking.Go(func() { _, _ = r.Contains(ctx, [20]byte{byte(i)}) })
	}
	for range 16 {
		<-arrived
	}
	if _, err := ask(r, "one more"); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("the 17th = %v", err)
	}
	leave()
	asking.Wait()
	if got := r.Status(); got != (breached.Asked{}) {
		t.Errorf("who went away counts as %+v", got)
	}
}

func TestRangesAddress(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://api.pwnedpasswords.com": true, "https://mirror.example.com:8443/pwned/": true, "http://127.0.0.1:8080": true, "http://[::1]": true,
		"http://localhost": true, "": false, "api.pwnedpasswords.com": false, "http://api.pwnedpasswords.com": false, "ftp://127.0.0.1": false,
		"https://user:secret@example.com": false, "https://example.com/?q=1": false, "https://example.com/#x": false, "https://exa mple.com": false,
	} {
		if _, err := breached.NewRanges(address, time.Now); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		} else if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
}

// FuzzReadRange: no answer breaks the reader, and what it takes is bounded.
func FuzzReadRange(f *testing.F) {
	f.Add(line("a", 3)[5:] + line("b", 0)[5:])
	f.Fuzz(func(t *testing.T, body string) {
		known, err := breached.ReadRange("00000", strings.NewReader(body))
		if err != nil && known != nil || len(known) > strings.Count(body, ":") {
			t.Errorf("= %d entries, %v", len(known), err)
		}
	})
}
