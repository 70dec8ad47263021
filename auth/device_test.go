package auth_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kidoban/kidoban/auth"
)

// keys is a ring of cookie keys, the current one first.
type keys [][]byte

func (k *keys) ring() ([]byte, [][]byte) { return (*k)[0], *k }

func (k *keys) rotate() {
	*k = append(keys{bytes.Repeat([]byte{byte(len(*k) + 1)}, 32)}, *k...)
}

func newKeys() *keys { return &keys{bytes.Repeat([]byte{1}, 32)} }

type deviceBench struct {
	t *testing.T
	*auth.Devices
	b    backing
	keys *keys
}

func eachDevices(t *testing.T, run func(*deviceBench)) {
	eachStore(t, func(t *testing.T, b backing) {
		d := &deviceBench{t: t, b: b, keys: newKeys()}
		d.reopen()
		run(d)
	})
}

func (d *deviceBench) reopen() {
	d.t.Helper()
	devices, err := auth.OpenDevices(d.t.Context(), d.b.open(), d.keys.ring, auth.DevicesConfig{}, start)
	if err != nil {
		d.t.Fatal(err)
	}
	d.Devices = devices
}

func (d *deviceBench) complete(cookie, subject string, after time.Duration) (string, auth.DeviceView) {
	d.t.Helper()
	next, view, err := d.Complete(d.t.Context(), cookie, subject, start.Add(after))
	if err != nil {
		d.t.Fatal(err)
	}
	return next, view
}

func (d *deviceBench) wantState(cookie, subject string, after time.Duration, want string) auth.DeviceView {
	d.t.Helper()
	got, err := d.Read(d.t.Context(), cookie, subject, start.Add(after))
	if err != nil || got.State != want {
		d.t.Errorf("%s after %v: got state %q, %v, want %q", subject, after, got.State, err, want)
	}
	if (got.ID == "") != (want == "") {
		d.t.Errorf("%s after %v: got id %q with state %q", subject, after, got.ID, got.State)
	}
	return got
}

func TestOpenDevices(t *testing.T) {
	good := bytes.Repeat([]byte{1}, 32)
	other := bytes.Repeat([]byte{2}, 32)
	for _, test := range []struct {
		name    string
		current []byte
		all     [][]byte
		cfg     auth.DevicesConfig
		ok      bool
	}{
		{"one key", good, [][]byte{good}, auth.DevicesConfig{}, true},
		{"an old key", good, [][]byte{good, other}, auth.DevicesConfig{}, true},
		{"no key", nil, nil, auth.DevicesConfig{}, false},
		{"a short key", good[:15], [][]byte{good[:15]}, auth.DevicesConfig{}, false},
		{"the current one is not accepted", good, [][]byte{other}, auth.DevicesConfig{}, false},
		{"negative probation", good, [][]byte{good}, auth.DevicesConfig{Probation: -1}, false},
		{"negative parallel", good, [][]byte{good}, auth.DevicesConfig{ParallelFor: -1}, false},
		{"negative keep", good, [][]byte{good}, auth.DevicesConfig{KeepFor: -1}, false},
		{"negative keep unused", good, [][]byte{good}, auth.DevicesConfig{KeepUnused: -1}, false},
		{"negative accounts", good, [][]byte{good}, auth.DevicesConfig{MaxSubjects: -1}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := auth.OpenDevices(t.Context(), auth.NewMemoryStore(), func() ([]byte, [][]byte) { return test.current, test.all }, test.cfg, start)
			if (err == nil) != test.ok {
				t.Errorf("got error %v, want ok: %v", err, test.ok)
			}
		})
	}
}

func TestDeviceTrust(t *testing.T) {
	eachDevices(t, func(d *deviceBench) {
		cookie, view := d.complete("", "acc-1", 0)
		if view.State != "probation" || !view.Since.Equal(start) || view.ID == "" {
			d.t.Errorf("first login: got %+v", view)
		}
		if strings.Contains(cookie, view.ID) || len(cookie) != 48 {
			d.t.Errorf("cookie %q of %d characters", cookie, len(cookie))
		}
		for range 2 {
			d.wantState(cookie, "acc-1", 0, "probation")
			d.wantState(cookie, "acc-1", day-time.Microsecond, "probation")
			if got := d.wantState(cookie, "acc-1", day, "trusted"); !got.Since.Equal(start) {
				d.t.Errorf("since %v, want %v", got.Since, start)
			}
			if got := d.wantState(cookie, "acc-2", day, "stranger"); !got.Since.IsZero() {
				d.t.Errorf("a stranger since %v", got.Since)
			}
			d.wantState(cookie, "", day, "stranger")
			d.reopen()
		}
		// A second account on the device has a probation of its own.
		cookie, _ = d.complete(cookie, "acc-2", 2*day)
		d.wantState(cookie, "acc-2", 2*day, "probation")
		d.wantState(cookie, "acc-1", 2*day, "trusted")
		d.wantState(cookie, "acc-2", 3*day, "trusted")
		// Logging in again does not begin a probation again.
		cookie, _ = d.complete(cookie, "acc-1", 3*day)
		d.wantState(cookie, "acc-1", 3*day, "trusted")
		if _, _, err := d.Complete(d.t.Context(), cookie, "", start); err == nil {
			d.t.Error("completed a login of nobody")
		}
	})
}

func TestDeviceCookies(t *testing.T) {
	eachDevices(t, func(d *deviceBench) {
		cookie, mine := d.complete("", "acc-1", 0)
		raw, err := base64.RawURLEncoding.DecodeString(cookie)
		if err != nil {
			d.t.Fatal(err)
		}
		flipped := func(i int) string {
			b := slices.Clone(raw)
			b[i] ^= 1
			return base64.RawURLEncoding.EncodeToString(b)
		}
		stranger := *newKeys()
		stranger[0] = bytes.Repeat([]byte{9}, 32)
		elsewhere, err := auth.OpenDevices(d.t.Context(), auth.NewMemoryStore(), stranger.ring, auth.DevicesConfig{}, start)
		if err != nil {
			d.t.Fatal(err)
		}
		foreign, _, err := elsewhere.Complete(d.t.Context(), "", "acc-1", start)
		if err != nil {
			d.t.Fatal(err)
		}
		bad := map[string]string{
			"nothing": "", "a character less": cookie[:47], "a character more": cookie + "A", "made up": strings.Repeat("A", 48),
			"another device": flipped(0), "another generation": flipped(19), "another signature": flipped(35), "the last bit of the id": flipped(15),
			"signed by another key": foreign, "line breaks": cookie[:44] + "\n\n\n\n", "standard base64": strings.Repeat("+", 48),
			"a megabyte": strings.Repeat("A", 1<<20), "not ASCII": strings.Repeat("\u00e9", 24), "cut and padded": cookie[:46] + "==",
		}
		for i := range raw {
			bad[fmt.Sprintf("bit of byte %d", i)] = flipped(i)
		}
		for name, c := range bad {
			if db, ok := d.b.(*database); ok {
				if n := db.counted(func() { d.wantState(c, "acc-1", day, "") }); n != 0 {
					d.t.Errorf("%s: %d statements for a cookie that is not ours", name, n)
				}
			}
			d.wantState(c, "acc-1", day, "")
			next, view := d.complete(c, "acc-1", day)
			if view.ID == mine.ID || next == c || view.State != "probation" {
				d.t.Errorf("%s: completing got %+v, want a new device", name, view)
			}
		}
		d.wantState(cookie, "acc-1", day, "trusted")
	})
}

func TestDeviceKeysRotate(t *testing.T) {
	eachDevices(t, func(d *deviceBench) {
		old, view := d.complete("", "acc-1", 0)
		d.keys.rotate()
		d.reopen()
		d.wantState(old, "acc-1", day, "trusted")
		cookie, next := d.complete(old, "acc-1", day)
		if next.ID != view.ID {
			d.t.Errorf("a new key made device %s of %s", next.ID, view.ID)
		}
		*d.keys = (*d.keys)[:1] // the old key is gone
		d.wantState(old, "acc-1", day, "")
		d.wantState(cookie, "acc-1", day, "trusted")
	})
}

func TestDeviceRotation(t *testing.T) {
	// step is something a client does with the cookie of a generation: a request
	// ("read") or a completed login ("login").
	type step struct {
		do         string
		generation int
		after      time.Duration
		want       string // state for acc-1 afterwards
		gets       int    // generation of the cookie that a login gives; 0: a new device's
	}
	const s = time.Second
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"each login moves on", []step{
			{"login", 1, day, "trusted", 2}, {"read", 2, day + s, "trusted", 0}, {"login", 2, 2 * day, "trusted", 3}, {"read", 3, 2*day + s, "trusted", 0},
		}},
		{"the answer was lost", []step{
			{"login", 1, day, "trusted", 2}, {"read", 1, 5 * day, "trusted", 0}, {"login", 1, 6 * day, "trusted", 2}, {"read", 2, 7 * day, "trusted", 0},
		}},
		{"the answer was lost twice", []step{
			{"login", 1, day, "trusted", 2}, {"login", 1, 2 * day, "trusted", 2}, {"login", 1, 3 * day, "trusted", 2}, {"login", 2, 4 * day, "trusted", 3}, {"read", 2, 5 * day, "trusted", 0},
		}},
		{"parallel tabs", []step{
			{"login", 1, day, "trusted", 2}, {"read", 2, day + s, "trusted", 0}, {"read", 1, day + 59*s, "trusted", 0}, {"login", 1, day + 59*s, "trusted", 2}, {"read", 2, 2 * day, "trusted", 0},
		}},
		{"a tab that is too late", []step{
			{"login", 1, day, "trusted", 2}, {"read", 2, day + s, "trusted", 0}, {"read", 1, day + 60*s, "forked", 0},
		}},
		{"a copy read after the original moved on", []step{
			{"login", 1, day, "trusted", 2}, {"read", 2, 2 * day, "trusted", 0}, {"read", 1, 3 * day, "forked", 0},
			{"read", 2, 4 * day, "forked", 0}, {"read", 2, 400 * day, "forked", 0},
		}},
		{"a copy logs in after the original moved on", []step{
			{"login", 1, day, "trusted", 2}, {"login", 2, 2 * day, "trusted", 3}, {"login", 1, 3 * day, "forked", 0}, {"login", 3, 4 * day, "forked", 0},
		}},
		{"two generations back within the minute", []step{
			{"login", 1, day, "trusted", 2}, {"login", 2, day + s, "trusted", 3}, {"read", 1, day + 2*s, "forked", 0},
		}},
		{"the copy moves first, then the owner comes", []step{
			{"login", 1, day, "trusted", 2}, {"read", 2, day + s, "trusted", 0}, {"login", 1, 2 * day, "forked", 0},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			eachDevices(t, func(d *deviceBench) {
				first, view := d.complete("", "acc-1", 0)
				cookies := map[int]string{1: first}
				for i, step := range test.steps {
					at := fmt.Sprintf("step %d (%s with %d)", i+1, step.do, step.generation)
					cookie := cookies[step.generation]
					if cookie == "" {
						d.t.Fatalf("%s: no such cookie", at)
					}
					if step.do == "login" {
						next, got := d.complete(cookie, "acc-1", step.after)
						switch {
						case step.gets == 0 && (got.ID == view.ID || got.State != "probation"):
							d.t.Errorf("%s: got %+v, want a new device on probation", at, got)
						case step.gets != 0 && got.ID != view.ID:
							d.t.Errorf("%s: got device %s, want %s", at, got.ID, view.ID)
						case step.gets != 0 && cookies[step.gets] != "" && cookies[step.gets] != next:
							d.t.Errorf("%s: got another cookie of generation %d", at, step.gets)
						case step.gets != 0:
							cookies[step.gets] = next
						}
					}
					d.reopen()
					if step.do == "read" || step.gets == 0 {
						d.wantState(cookie, "acc-1", step.after, step.want)
					}
				}
			})
		})
	}
}

func TestDeviceAccounts(t *testing.T) {
	eachDevices(t, func(d *deviceBench) {
		cookie, _ := d.complete("", "acc-1", 0)
		for i := 2; i <= 8; i++ {
			cookie, _ = d.complete(cookie, fmt.Sprint("acc-", i), time.Duration(i)*time.Hour)
		}
		cookie, _ = d.complete(cookie, "acc-1", 10*time.Hour) // used again: acc-2 is now the oldest
		cookie, _ = d.complete(cookie, "acc-9", 11*time.Hour)
		d.reopen()
		for i := 1; i <= 9; i++ {
			want := "probation"
			if i == 2 {
				want = "stranger"
			}
			d.wantState(cookie, fmt.Sprint("acc-", i), 12*time.Hour, want)
		}
	})
}

func TestDevicesSweep(t *testing.T) {
	eachDevices(t, func(d *deviceBench) {
		unused, _ := d.complete("", "acc-1", 0)
		used, _ := d.complete("", "acc-2", 0)
		d.wantState(used, "acc-2", time.Second, "probation")
		for range 600 { // more than one transaction forgets
			d.complete("", "acc-3", 0)
		}
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{7*day - time.Microsecond, 0}, {7 * day, 601}, {400*day - time.Microsecond, 0}, {400 * day, 1}, {500 * day, 0}} {
			if got, err := d.Sweep(d.t.Context(), start.Add(step.after)); err != nil || got != step.want {
				d.t.Errorf("after %v: forgot %d, %v, want %d", step.after, got, err, step.want)
			}
		}
		d.wantState(unused, "acc-1", 0, "")
		if next, view := d.complete(used, "acc-2", 500*day); next == used || view.State != "probation" {
			d.t.Errorf("a forgotten device: got %+v, want a new one", view)
		}
	})
}

// Tabs that log in at the same time all end up with the same cookie.
func TestDeviceTabsAtOnce(t *testing.T) {
	eachDevices(t, func(d *deviceBench) {
		cookie, first := d.complete("", "acc-1", 0)
		const tabs = 8
		got := make([]string, tabs)
		errs := make([]error, tabs)
		var wg sync.WaitGroup
		for i := range tabs {
			wg.Go(func() {
				if _, errs[i] = d.Read(d.t.Context(), cookie, "acc-1", start.Add(day)); errs[i] == nil {
					got[i], _, errs[i] = d.Complete(d.t.Context(), cookie, "acc-1", start.Add(day))
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			d.t.Fatal(err)
		}
		if diff := cmp.Diff(slices.Repeat(got[:1], tabs), got); diff != "" {
			d.t.Errorf("cookies differ (-want +got):\n%s", diff)
		}
		if view := d.wantState(got[0], "acc-1", 2*day, "trusted"); view.ID != first.ID {
			d.t.Errorf("got device %s, want %s", view.ID, first.ID)
		}
	})
}

// The model counts in small numbers what the cookie says by signature: which of
// our answers a client holds.
func TestDevicesModel(t *testing.T) {
	eachStore(t, func(t *testing.T, b backing) {
		b.open()
		rapid.Check(t, func(t *rapid.T) {
			b.clear()
			runDevicesModel(t, b)
		})
	})
}

type modelDevice struct {
	id        string
	cookies   []string // by generation; the first is no cookie
	presented int
	rotated   time.Time
	forked    bool
	since     map[string]time.Time
	last      map[string]time.Time
}

func runDevicesModel(t *rapid.T, b backing) {
	ctx, now, ring := t.Context(), start, newKeys()
	cfg := auth.DevicesConfig{MaxSubjects: 2}
	devices, err := auth.OpenDevices(ctx, b.open(), ring.ring, cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	var all []*modelDevice
	subjects := rapid.SampledFrom([]string{"acc-1", "acc-2", "acc-3"})
	// A cookie that some client holds, of any device and any generation.
	held := func(t *rapid.T) (*modelDevice, int) {
		if len(all) == 0 {
			t.Skip("no device yet")
		}
		m := all[rapid.IntRange(0, len(all)-1).Draw(t, "device")]
		latest := len(m.cookies) - 1
		return m, max(1, latest-rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(t, "behind"))
	}
	present := func(m *modelDevice, generation int) {
		latest := len(m.cookies) - 1
		lost := m.presented < latest // nobody has shown the latest
		parallel := now.Sub(m.rotated) < time.Minute
		if generation == latest || generation == latest-1 && (lost || parallel) {
			m.presented = max(m.presented, generation)
			return
		}
		m.forked = true
	}
	state := func(m *modelDevice, subject string) string {
		since, known := m.since[subject]
		switch {
		case m.forked:
			return "forked"
		case !known:
			return "stranger"
		case now.Sub(since) < day:
			return "probation"
		}
		return "trusted"
	}
	associate := func(m *modelDevice, subject string) {
		if _, known := m.since[subject]; !known {
			if len(m.since) == cfg.MaxSubjects {
				var oldest string
				for s := range m.since {
					if oldest == "" || m.last[s].Before(m.last[oldest]) {
						oldest = s
					}
				}
				delete(m.since, oldest)
				delete(m.last, oldest)
			}
			m.since[subject] = now
		}
		m.last[subject] = now
	}
	made := func(cookie string, view auth.DeviceView, subject string) {
		m := &modelDevice{id: view.ID, cookies: []string{"", cookie}, rotated: now, since: map[string]time.Time{}, last: map[string]time.Time{}}
		associate(m, subject)
		all = append(all, m)
		if view.State != "probation" {
			t.Fatalf("a new device: got state %q, want probation", view.State)
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"advance": func(t *rapid.T) {
			now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second, time.Minute, 12 * time.Hour, 2 * day}).Draw(t, "by"))
		},
		"new": func(t *rapid.T) {
			now = now.Add(time.Second) // no two log-ins at once, so that "longest ago" is one
			subject := subjects.Draw(t, "subject")
			cookie, view, err := devices.Complete(ctx, "", subject, now)
			if err != nil {
				t.Fatal(err)
			}
			made(cookie, view, subject)
		},
		"read": func(t *rapid.T) {
			m, generation := held(t)
			subject := subjects.Draw(t, "subject")
			view, err := devices.Read(ctx, m.cookies[generation], subject, now)
			if err != nil {
				t.Fatal(err)
			}
			present(m, generation)
			if want := state(m, subject); view.State != want || view.ID != m.id || !view.Since.Equal(m.since[subject]) {
				t.Fatalf("read: got %+v, want %s %s since %v", view, m.id, want, m.since[subject])
			}
		},
		"login": func(t *rapid.T) {
			now = now.Add(time.Second)
			m, generation := held(t)
			subject := subjects.Draw(t, "subject")
			cookie, view, err := devices.Complete(ctx, m.cookies[generation], subject, now)
			if err != nil {
				t.Fatal(err)
			}
			if present(m, generation); m.forked {
				if view.ID == m.id {
					t.Fatal("login: a forked device went on")
				}
				made(cookie, view, subject)
				return
			}
			if generation == len(m.cookies)-1 {
				m.cookies = append(m.cookies, cookie)
				m.rotated = now
			}
			associate(m, subject)
			if want := state(m, subject); view.ID != m.id || view.State != want || cookie != m.cookies[len(m.cookies)-1] {
				t.Fatalf("login: got %+v with the latest cookie: %v, want %s %s", view, cookie == m.cookies[len(m.cookies)-1], m.id, want)
			}
		},
		"restart": func(t *rapid.T) {
			if devices, err = auth.OpenDevices(ctx, b.open(), ring.ring, cfg, now); err != nil {
				t.Fatal(err)
			}
		},
	})
}

func FuzzDeviceCookie(f *testing.F) {
	ring := newKeys()
	devices, err := auth.OpenDevices(f.Context(), auth.NewMemoryStore(), ring.ring, auth.DevicesConfig{}, start)
	if err != nil {
		f.Fatal(err)
	}
	mine, _, err := devices.Complete(f.Context(), "", "acc-1", start)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(mine)
	f.Add("")
	f.Add(strings.Repeat("A", 48))
	f.Add(mine[:47] + "\n")
	f.Fuzz(func(t *testing.T, cookie string) {
		view, err := devices.Read(t.Context(), cookie, "acc-1", start)
		if known := view.State != ""; err != nil || known != (cookie == mine) {
			t.Errorf("%q: got %+v, %v", cookie, view, err)
		}
	})
}

func BenchmarkDeviceRead(b *testing.B) {
	devices, err := auth.OpenDevices(b.Context(), newDatabase(b).open(), newKeys().ring, auth.DevicesConfig{}, start)
	if err != nil {
		b.Fatal(err)
	}
	mine, _, err := devices.Complete(b.Context(), "", "acc-1", start)
	if err != nil {
		b.Fatal(err)
	}
	for name, cookie := range map[string]string{"ours": mine, "made up": strings.Repeat("A", 48)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := devices.Read(b.Context(), cookie, "acc-1", start); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// An account sees its own devices, the latest first, and forgets its own part of one.
func TestDevicesOfAccount(t *testing.T) {
	eachDevices(t, func(d *deviceBench) {
		ctx := d.t.Context()
		want := func(subject string, after time.Duration, want ...auth.DeviceView) {
			d.t.Helper()
			got, err := d.OfSubject(ctx, subject, start.Add(after))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				d.t.Errorf("devices of %s: %v (-want +got):\n%s", subject, err, diff)
			}
		}
		want("acc-1", 0)
		first, a := d.complete("", "acc-1", 0)
		_, b := d.complete("", "acc-1", time.Hour)
		first, shared := d.complete(first, "acc-2", 2*time.Hour)
		a.Since, a.Last, b.Since, b.Last = start, start, start.Add(time.Hour), start.Add(time.Hour)
		want("acc-1", 3*time.Hour, b, a)
		want("acc-2", 3*time.Hour, shared)
		first, a = d.complete(first, "acc-1", 4*time.Hour)
		a.State, b.State = "trusted", "probation"
		want("acc-1", 24*time.Hour, a, b)
		if a.Since != start || a.Last != start.Add(4*time.Hour) {
			d.t.Errorf("got %+v", a)
		}
		for _, nothing := range []struct{ subject, id string }{{"acc-2", b.ID}, {"acc-3", a.ID}, {"acc-1", "x"}, {"", a.ID}, {"acc-1", "AAAAAAAAAAAAAAAAAAAAAAAAAA"}, {"acc-1", strings.ToLower(a.ID)}} {
			if err := d.Forget(ctx, nothing.subject, nothing.id, start); err != nil {
				d.t.Errorf("%+v: %v", nothing, err)
			}
		}
		want("acc-1", 24*time.Hour, a, b)
		if err := d.Forget(ctx, "acc-1", a.ID, start.Add(24*time.Hour)); err != nil {
			d.t.Error(err)
		}
		want("acc-1", 24*time.Hour, b)
		want("acc-2", 3*time.Hour, shared)
		d.wantState(first, "acc-1", 24*time.Hour, "stranger")
		d.wantState(first, "acc-2", 30*time.Hour, "trusted")
		want("a\x00", 0)
	})
}
