package outbox_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/policies"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf is a small true store in memory.
type shelf struct {
	mu      sync.Mutex
	notices map[string]*policies.Notice
	lost    int // settlements that fail, from now on
	settled []string
}

func (s *shelf) put(key, to string, created time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.notices == nil {
		s.notices = map[string]*policies.Notice{}
	}
	s.notices[key] = &policies.Notice{Key: key, To: to, Channel: "webhook", Template: "test", MessageID: "m-" + key, State: policies.Pending, Created: created, Next: created}
}

func (s *shelf) Claim(_ context.Context, owner string, now time.Time, lease time.Duration, limit int) (found []policies.Notice, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []*policies.Notice
	for _, n := range s.notices {
		if n.State != policies.Sent && n.State != policies.GivenUp && !n.Next.After(now) {
			due = append(due, n)
		}
	}
	slices.SortFunc(due, func(a, b *policies.Notice) int {
		return cmp.Or(a.Next.Compare(b.Next), cmp.Compare(a.Key, b.Key))
	})
	for _, n := range due[:min(limit, len(due))] {
		if n.State == policies.Leased {
			n.State = policies.Uncertain
		}
		if n.State == policies.Pending {
			n.State = policies.Leased
		}
		n.Attempts, n.Owner, n.Next = n.Attempts+1, owner, now.Add(lease)
		found = append(found, *n)
	}
	return found, nil
}

func (s *shelf) Settle(_ context.Context, key string, state policies.NoticeState, next, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost > 0 {
		s.lost--
		return errors.New("the database is away")
	}
	n := s.notices[key]
	if state == policies.Pending && n.State == policies.Uncertain {
		state = policies.Uncertain
	}
	n.State, n.Next = state, next
	if state == policies.Sent || state == policies.GivenUp {
		s.settled = append(s.settled, key+" "+string(state))
	}
	return nil
}

func (s *shelf) state(key string) policies.NoticeState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notices[key].State
}

// attempt is one call of a Sender.
type attempt struct {
	key      string
	at       time.Duration // since the start
	repeated bool
}

// receiver answers as it is told and notes what it was asked.
type receiver struct {
	answer func(n policies.Notice) outbox.Answer
	takes  time.Duration
	start  time.Time

	mu       sync.Mutex
	busy     int
	most     int
	attempts []attempt
}

func (r *receiver) Send(ctx context.Context, n policies.Notice, now time.Time) outbox.Answer {
	r.mu.Lock()
	r.busy++
	r.most = max(r.most, r.busy)
	r.attempts = append(r.attempts, attempt{n.Key, now.Sub(r.start), n.State == policies.Uncertain})
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.busy--
		r.mu.Unlock()
	}()
	if r.takes > 0 {
		select {
		case <-time.After(r.takes):
		case <-ctx.Done():
			return outbox.Answer{Err: ctx.Err(), Uncertain: true}
		}
	}
	if r.answer == nil {
		return outbox.Answer{}
	}
	return r.answer(n)
}

func (r *receiver) list() []attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.attempts)
}

// deliver runs a deliverer in the bubble of the test until the returned function is called.
func deliver(t *testing.T, s outbox.Store, senders map[string]outbox.Sender) (d *outbox.Deliverer, stop func()) {
	t.Helper()
	d = outbox.New(outbox.Config{Store: s, Owner: "tokyo-1/1", Log: slog.New(slog.DiscardHandler)})
	d.Use(senders)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	return d, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestNoticesAreSentOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(shelf), &receiver{takes: 10 * time.Millisecond, start: time.Now()}
		for i := range 100 {
			s.put(fmt.Sprintf("%03d", i), "a", time.Now())
		}
		d, stop := deliver(t, s, map[string]outbox.Sender{"a": r})
		time.Sleep(2 * time.Minute)
		got := r.list()
		if len(got) != 100 || r.most != 1 {
			t.Errorf("%d attempts, %d at a time, want 100 and 1", len(got), r.most)
		}
		if !slices.IsSortedFunc(got[:32], func(a, b attempt) int { return cmp.Compare(a.key, b.key) }) {
			t.Errorf("order: %v", got[:32])
		}
		s.put("later", "a", time.Now())
		before := time.Now()
		d.Kick()
		synctest.Wait()
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if s.state("later") != policies.Sent {
			t.Errorf("%v after a kick: %s", time.Since(before), s.state("later"))
		}
		if got := d.Status(); got.Sent != 101 || got.Held != 0 || len(got.Failing) > 0 {
			t.Errorf("status: %+v", got)
		}
		stop()
	})
}

func TestWhatBecomesOfANotice(t *testing.T) {
	failed := errors.New("status 500")
	for _, test := range []struct {
		name     string
		answers  []outbox.Answer // the last one for ever
		want     policies.NoticeState
		attempts int           // 0: many
		within   time.Duration // of the last attempt
		after    time.Duration // of the last attempt, at least
		repeated bool          // the last attempt says so
	}{
		{"taken", []outbox.Answer{{}}, policies.Sent, 1, time.Second, 0, false},
		{"gone", []outbox.Answer{{Err: failed, Alive: true, Final: true}}, policies.GivenUp, 1, time.Second, 0, false},
		{"taken the second time", []outbox.Answer{{Err: failed}, {}}, policies.Sent, 2, 15 * time.Second, 0, false},
		{"may have arrived", []outbox.Answer{{Err: failed, Uncertain: true}, {}}, policies.Sent, 2, 15 * time.Second, 0, true},
		{"stays uncertain", []outbox.Answer{{Err: failed, Uncertain: true}, {Err: failed}, {}}, policies.Sent, 3, 30 * time.Second, 0, true},
		{"asks for two minutes", []outbox.Answer{{Err: failed, Alive: true, After: 2 * time.Minute}, {}}, policies.Sent, 2, 2*time.Minute + 10*time.Second, 2 * time.Minute, false},
		{"asks for a year", []outbox.Answer{{Err: failed, Alive: true, After: 365 * 24 * time.Hour}, {}}, policies.Sent, 2, time.Hour + 10*time.Second, time.Hour, false},
		{"never", []outbox.Answer{{Err: failed}}, policies.GivenUp, 0, policies.GiveUpAfter + time.Hour, 48 * time.Hour, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, r := new(shelf), &receiver{start: time.Now()}
				i := 0
				r.answer = func(policies.Notice) outbox.Answer {
					i++
					return test.answers[min(i, len(test.answers))-1]
				}
				s.put("n", "a", time.Now())
				d, stop := deliver(t, s, map[string]outbox.Sender{"a": r})
				time.Sleep(policies.GiveUpAfter + 2*time.Hour)
				stop()
				if got := s.state("n"); got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
				got := r.list()
				last := got[len(got)-1]
				if test.attempts > 0 && len(got) != test.attempts || last.at > test.within || last.at < test.after || last.repeated != test.repeated {
					t.Errorf("%d attempts, the last %+v; want %d, the last within %v to %v, repeated %v", len(got), last, test.attempts, test.after, test.within, test.repeated)
				}
				if test.attempts == 0 && (len(got) < 70 || len(got) > 1000) {
					t.Errorf("%d attempts in three days", len(got))
				}
				_ = d
			})
		})
	}
}

// A crash between the receiver's answer and our commit: the lease runs out, and the
// message says that it may be a repetition.
func TestACrashBeforeSettlingRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := &shelf{lost: 1}, &receiver{start: time.Now()}
		s.put("n", "a", time.Now())
		_, stop := deliver(t, s, map[string]outbox.Sender{"a": r})
		time.Sleep(5 * time.Minute)
		stop()
		got := r.list()
		if len(got) != 2 || got[0].repeated || !got[1].repeated || s.state("n") != policies.Sent {
			t.Errorf("got %+v and %s, want a second attempt that says so", got, s.state("n"))
		}
	})
}

func TestDeadReceiversDoNotStarveOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, good := new(shelf), &receiver{start: time.Now(), takes: 20 * time.Millisecond}
		senders := map[string]outbox.Sender{"good": good}
		var dead []*receiver
		for i := range 12 { // more than are sent to at once
			name := fmt.Sprintf("dead%d", i)
			r := &receiver{start: time.Now(), takes: 10 * time.Second, answer: func(policies.Notice) outbox.Answer {
				return outbox.Answer{Err: errors.New("no answer in time"), Uncertain: true}
			}}
			dead, senders[name] = append(dead, r), r
			for j := range 40 {
				s.put(fmt.Sprintf("%s-%02d", name, j), name, time.Now())
			}
		}
		d, stop := deliver(t, s, senders)
		time.Sleep(10 * time.Minute)
		for i := range 20 {
			s.put(fmt.Sprintf("good-%02d", i), "good", time.Now())
		}
		began := time.Now()
		d.Kick()
		for s.count(policies.Sent) < 20 && time.Since(began) < 10*time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("20 notices took %v beside 12 dead receivers, want at most 30 s", took)
		}
		if got := d.Status(); len(got.Failing) != 12 || got.Failing[0].Why != "no answer in time" {
			t.Errorf("status: %+v", got)
		}
		time.Sleep(time.Hour)
		for _, r := range dead {
			// Five failures, then one attempt each 5 minutes or so.
			if n := len(r.list()); n < 5 || n > 45 {
				t.Errorf("%d attempts at a dead receiver in 70 minutes", n)
			}
		}
		stop()
	})
}

func (s *shelf) count(state policies.NoticeState) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.notices {
		if x.State == state {
			n++
		}
	}
	return n
}

func TestAReceiverThatComesBackGetsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(shelf), &receiver{start: time.Now()}
		back := time.Now().Add(time.Hour)
		r.answer = func(policies.Notice) outbox.Answer {
			if time.Now().Before(back) {
				return outbox.Answer{Err: errors.New("connection refused")}
			}
			return outbox.Answer{}
		}
		for i := range 200 {
			s.put(fmt.Sprint(i), "a", time.Now())
		}
		d, stop := deliver(t, s, map[string]outbox.Sender{"a": r})
		time.Sleep(3*time.Hour + time.Minute)
		stop()
		if got := s.count(policies.Sent); got != 200 {
			t.Errorf("%d of 200 sent two hours after it came back; %+v", got, d.Status())
		}
	})
}

func TestUnknownReceiversWaitForAConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(shelf), &receiver{start: time.Now()}
		s.put("n", "later", time.Now())
		s.put("overflow", "", time.Now())
		d, stop := deliver(t, s, nil)
		time.Sleep(time.Minute)
		if got := s.state("n"); got != policies.Pending {
			t.Errorf("got %s, want pending", got)
		}
		if got := s.state("overflow"); got != policies.Sent {
			t.Errorf("overflow: got %s, want sent (to the log)", got)
		}
		if got := d.Status().Failing; len(got) > 0 {
			t.Errorf("%v fails, but is none", got)
		}
		d.Use(map[string]outbox.Sender{"later": r})
		time.Sleep(time.Hour)
		stop()
		if got := s.state("n"); got != policies.Sent {
			t.Errorf("got %s, want sent", got)
		}
	})
}

// Run ends with nothing held: what was under way is settled, the rest given back.
func TestRunEndsInOrder(t *testing.T) {
	for _, test := range []struct {
		takes time.Duration
		want  policies.NoticeState
		most  time.Duration
	}{{2 * time.Second, policies.Sent, 2 * time.Second}, {9 * time.Second, policies.Uncertain, 3 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			s, r := new(shelf), &receiver{start: time.Now(), takes: test.takes}
			for i := range 5 {
				s.put(fmt.Sprint(i), "a", time.Now())
			}
			d, stop := deliver(t, s, map[string]outbox.Sender{"a": r})
			synctest.Wait()
			began := time.Now()
			stop()
			if took := time.Since(began); took > test.most {
				t.Errorf("took %v, want at most %v", took, test.most)
			}
			if got := s.state("0"); got != test.want {
				t.Errorf("under way: got %s, want %s", got, test.want)
			}
			if got := s.state("4"); got != policies.Pending || len(r.list()) != 1 || d.Status().Held != 0 {
				t.Errorf("not begun: got %s after %d attempts, %d held; want pending", got, len(r.list()), d.Status().Held)
			}
		})
	}
}

// The whole way: policies.Outbox over SQLite, a process that dies after the receiver
// answered, another that goes on.
func TestWithTheOutbox(t *testing.T) {
	db, err := storage.Open(t.Context(), storage.Options{DataDir: filepath.Join(t.TempDir(), "data"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	bodies := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if err := verify(r.Header, b, newKey); err != nil {
			t.Error(err)
		}
		bodies <- string(b)
	}))
	defer server.Close()
	hook := webhook(t, outbox.WebhookConfig{URL: server.URL + "/?token=query-secret", Allow: loopback, AllowPlain: true})
	var mu sync.Mutex
	now := monday
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	var log lockedBuffer
	run := func(store outbox.Store, until func() bool) {
		d := outbox.New(outbox.Config{Store: store, Owner: "node", Log: slog.New(slog.NewTextHandler(&log, nil)), Now: clock, Poll: time.Millisecond})
		d.Use(map[string]outbox.Sender{"duty": hook})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for !until() && ctx.Err() == nil {
			<-tick.C
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	open := func() *policies.Outbox {
		o, err := policies.NewOutbox(db.SQL(), db.Dialect())
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	first := open()
	if _, err := first.Put(t.Context(), policies.Notice{Key: "k", Channel: "webhook", Template: "decision.registered", To: "duty", Values: map[string]string{"a": "b"}}, clock()); err != nil {
		t.Fatal(err)
	}
	dying := &dead{Store: first}
	run(dying, dying.reached)
	mu.Lock()
	now = now.Add(10 * time.Minute)
	mu.Unlock()
	second := open()
	run(second, func() bool { n, err := second.Counts(t.Context()); return err == nil && n[policies.Sent] == 1 })
	one, two := <-bodies, <-bodies
	if !strings.Contains(one, `"repeated":false`) || !strings.Contains(two, `"repeated":true`) {
		t.Errorf("got %s and %s, want the second marked", one, two)
	}
	if strings.Replace(two, "true", "false", 1) != one {
		t.Errorf("got %s and %s, want the same but for the mark", one, two)
	}
	if len(bodies) > 0 {
		t.Errorf("a third one: %s", <-bodies)
	}
	for _, s := range []string{"query-secret", secret(newKey), server.URL} {
		if strings.Contains(log.String(), s) {
			t.Errorf("the log has %s:\n%s", s, log.String())
		}
	}
}

// dead is a store whose process ended: nothing is settled any more.
type dead struct {
	outbox.Store
	mu    sync.Mutex
	after bool
}

func (d *dead) Settle(context.Context, string, policies.NoticeState, time.Time, time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.after = true
	return errors.New("the process is gone")
}

func (d *dead) reached() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.after }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }
