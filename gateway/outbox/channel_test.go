package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kidoban/kidoban/gateway/outbox"
	"github.com/kidoban/kidoban/policies"
)

// letters are notices of the channel mail, each to somebody else.
func letters(s *shelf, n int) {
	for i := range n {
		key := fmt.Sprintf("%03d", i)
		s.put(key, "user"+key+"@example.com", time.Now())
		s.notices[key].Channel = "mail"
	}
}

// channel delivers mail in the bubble of the test.
func channel(t *testing.T, s *shelf, r *receiver, log *slog.Logger) (*outbox.Deliverer, func()) {
	t.Helper()
	d := outbox.New(outbox.Config{Store: s, Owner: "tokyo-1/1", Log: log})
	d.UseChannels(map[string]outbox.Channel{"mail": {Sender: r, Lanes: 100}})
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

func TestAChannelSendsToWhomever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(shelf), &receiver{takes: 10 * time.Millisecond, start: time.Now()}
		letters(s, 100)
		d, stop := channel(t, s, r, slog.New(slog.DiscardHandler))
		time.Sleep(2 * time.Minute)
		if got := r.list(); len(got) != 100 || r.most != outbox.MaxLanes {
			t.Errorf("%d attempts, %d at a time, want 100 and %d", len(got), r.most, outbox.MaxLanes)
		}
		if got := d.Status(); got.Sent != 100 || got.Held != 0 || len(got.Failing) > 0 {
			t.Errorf("status: %+v", got)
		}
		stop()
	})
}

// A server that is dead is one failing receiver, whoever its mail is to, and is left
// alone like a webhook. Logs do not have whose mail it is.
func TestAChannelsServerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		s := new(shelf)
		r := &receiver{start: time.Now(), answer: func(policies.Notice) outbox.Answer { return outbox.Answer{Err: errors.New("connection refused")} }}
		letters(s, 200)
		d, stop := channel(t, s, r, slog.New(slog.NewTextHandler(&log, nil)))
		time.Sleep(time.Hour)
		got := d.Status().Failing
		if len(got) != 1 || got[0].Channel != "mail" || got[0].To != "" || got[0].Why != "connection refused" {
			t.Errorf("failing: %+v", got)
		}
		if n := len(r.list()); n > 120 { // a few each time it is tried, every five minutes in the end
			t.Errorf("%d attempts in an hour", n)
		}
		d.UseChannels(map[string]outbox.Channel{"mail": {Sender: &receiver{start: time.Now()}}})
		time.Sleep(2 * time.Hour)
		if got := d.Status(); got.Sent != 200 || len(got.Failing) > 0 {
			t.Errorf("after it was mended: %+v", got)
		}
		if strings.Contains(log.String(), "user") || !strings.Contains(log.String(), "to=*@example.com") {
			t.Errorf("log:\n%s", log.String())
		}
		stop()
	})
}

func TestWhatIsWithheld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		s, r := new(shelf), &receiver{start: time.Now(), answer: func(policies.Notice) outbox.Answer { return outbox.Answer{Withheld: true} }}
		letters(s, 3)
		d, stop := channel(t, s, r, slog.New(slog.NewTextHandler(&log, nil)))
		time.Sleep(time.Minute)
		if got := d.Status(); got.Withheld != 3 || got.GivenUp != 3 || got.Sent != 0 || len(got.Failing) > 0 || s.state("000") != policies.GivenUp || log.String() != "" {
			t.Errorf("status %+v, state %s, log %s", got, s.state("000"), log.String())
		}
		stop()
	})
}

// A notice to a channel that is not configured waits.
func TestAChannelThatIsNotConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(shelf)
		letters(s, 3)
		d, stop := deliver(t, s, nil)
		time.Sleep(time.Hour)
		if got := d.Status(); got.Sent+got.GivenUp != 0 || len(got.Failing) > 0 {
			t.Errorf("status: %+v", got)
		}
		r := &receiver{start: time.Now()}
		d.UseChannels(map[string]outbox.Channel{"mail": {Sender: r}})
		time.Sleep(2 * time.Hour)
		if got := len(r.list()); got != 3 || r.most != 1 {
			t.Errorf("%d attempts, %d at a time", got, r.most)
		}
		stop()
	})
}
