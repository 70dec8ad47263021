package feed_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/feed"
)

func TestDirectory(t *testing.T) {
	d := new(feed.Directory)
	event := func(at time.Duration, name byte, device string) detectors.Event {
		e := detectors.Event{Time: now.Add(at), Device: detectors.Device{ID: device}}
		if name != 0 {
			e.Name.Digest = detectors.Digest{name}
		}
		return e
	}
	login := func(e detectors.Event) detectors.Event {
		d.Fill(&e)
		d.Identify(&e)
		d.Complete(&e)
		return e
	}
	login(event(0, 'a', "d-1"))
	b := event(0, 'b', "d-2")
	b.Account, b.AccountSince = "u-b", now.Add(-time.Hour)
	login(b)
	login(event(0, 0, "d-3"))

	missing := event(time.Hour, 'a', "d-1")
	missing.Existence = detectors.Missing
	told := event(48*time.Hour, 'a', "d-1")
	told.Device.State = detectors.Forked
	other := event(48*time.Hour, 'a', "d-1")
	other.Account, other.AccountSince = "u-other", now
	for _, c := range []struct {
		name    string
		e       detectors.Event
		account bool
		since   time.Time
		state   detectors.DeviceState
	}{
		{"the same day", event(time.Hour, 'a', "d-1"), true, now, detectors.Probation},
		{"a day later", event(24*time.Hour, 'a', "d-1"), true, now, detectors.Trusted},
		{"another's device", event(24*time.Hour, 'a', "d-2"), true, now, detectors.Stranger},
		{"a new device", event(24*time.Hour, 'a', "d-9"), true, now, detectors.NoDevice},
		{"no device", event(24*time.Hour, 'b', ""), true, now.Add(-time.Hour), detectors.NoDevice},
		{"a new name", event(time.Hour, 'c', "d-1"), false, time.Time{}, detectors.Stranger},
		{"a login of nobody", event(time.Hour, 0, "d-3"), false, time.Time{}, detectors.NoDevice},
		{"a name that the log calls missing", missing, false, time.Time{}, detectors.Stranger},
		{"a state that the log tells", told, true, now, detectors.Forked},
		{"an account that the log tells", other, true, now, detectors.Stranger},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := c.e
			d.Fill(&e)
			if (e.Account != "") != c.account || !e.AccountSince.Equal(c.since) || e.Device.State != c.state {
				t.Errorf("got account %q since %s, device %q; want one %t, since %s, %q", e.Account, e.AccountSince, e.Device.State, c.account, c.since, c.state)
			}
		})
	}
}

// TestDirectoryForgets keeps who comes back, and not everybody.
func TestDirectoryForgets(t *testing.T) {
	d := new(feed.Directory)
	at := func(n int) detectors.Event {
		return detectors.Event{Time: now, Name: detectors.Name{Digest: detectors.Digest{1, byte(n), byte(n >> 8), byte(n >> 16)}}}
	}
	knows := func(n int) bool {
		e := at(n)
		d.Fill(&e)
		return e.Account != ""
	}
	const many = 3 << 17
	for n := range many {
		e := at(n)
		e.Account = detectors.Account(fmt.Sprint(n))
		d.Complete(&e)
		if n%10_000 == 0 && !knows(0) {
			t.Fatalf("after %d others it forgot whom it saw all the time", n)
		}
	}
	if knows(1) || !knows(many-1) {
		t.Errorf("it knows the second %t and the last %t, want the last only", knows(1), knows(many-1))
	}
}
