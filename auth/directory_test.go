package auth_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kidoban/kidoban/auth"
)

type directoryBench struct {
	t *testing.T
	*auth.Directory
	b backing
}

func eachDirectory(t *testing.T, run func(*directoryBench)) {
	eachStore(t, func(t *testing.T, b backing) {
		run(&directoryBench{t, auth.NewDirectory(b.open()), b})
	})
}

func (d *directoryBench) reopen() { d.Directory = auth.NewDirectory(d.b.open()) }

func (d *directoryBench) learn(p auth.Person, typed byte, after time.Duration) auth.Person {
	d.t.Helper()
	got, err := d.Learn(d.t.Context(), p, name(typed), start.Add(after))
	if err != nil {
		d.t.Fatal(err)
	}
	return got
}

// name is the digest of a typed name; 0 is none.
func name(b byte) (digest [16]byte) {
	digest[0] = b
	return digest
}

func (d *directoryBench) wantPerson(want auth.Person) {
	d.t.Helper()
	for range 2 { // from the store and from memory
		got, ok, err := d.BySubject(d.t.Context(), want.Subject)
		if err != nil || !ok {
			d.t.Fatalf("by subject: got %v, %v", ok, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			d.t.Errorf("person (-want +got):\n%s", diff)
		}
	}
}

func (d *directoryBench) wantTyped(typed byte, subject string, after time.Duration) {
	d.t.Helper()
	for range 2 {
		got, since, ok, err := d.ByTyped(d.t.Context(), name(typed))
		switch {
		case err != nil, ok != (subject != ""), got != subject:
			d.t.Errorf("typed %d: got %q, %v, %v, want %q", typed, got, ok, err, subject)
		case ok && !since.Equal(start.Add(after)):
			d.t.Errorf("typed %d: since %v, want %v", typed, since, start.Add(after))
		}
	}
}

func TestLearn(t *testing.T) {
	eachDirectory(t, func(d *directoryBench) {
		full := auth.Person{
			Subject: "acc-1", Organization: "org-1", Names: []string{"hanako"}, Mail: []string{"hanako@acme.example", "h@acme.example"},
			Roles: []string{"admin", "member"}, Language: "ja", TimeZone: "Asia/Tokyo",
		}
		want := full
		want.FirstSeen, want.LastSeen = start, start
		if diff := cmp.Diff(want, d.learn(full, 1, 0)); diff != "" {
			d.t.Errorf("learned (-want +got):\n%s", diff)
		}
		d.wantPerson(want)

		// Less said is nothing lost, and being seen alone is noted once an hour.
		d.learn(auth.Person{Subject: "acc-1"}, 0, time.Minute)
		d.wantPerson(want)

		// What is said replaces, addresses too.
		want.LastSeen = start.Add(2 * time.Hour)
		want.Mail, want.Roles, want.Language = []string{"new@acme.example"}, []string{"member"}, "en"
		d.learn(auth.Person{Subject: "acc-1", Mail: []string{"new@acme.example"}, Roles: []string{"member"}, Language: "en"}, 1, 2*time.Hour)
		d.wantPerson(want)
		d.reopen()
		d.wantPerson(want)

		// A clock that went back does not move the last time back.
		want.FirstSeen = start.Add(-time.Hour)
		d.learn(auth.Person{Subject: "acc-1", TimeZone: "UTC"}, 0, -time.Hour)
		want.TimeZone = "UTC"
		d.wantPerson(want)

		if _, ok, err := d.BySubject(d.t.Context(), "nobody"); ok || err != nil {
			d.t.Errorf("nobody: got %v, %v", ok, err)
		}
	})
}

func TestLearnBounds(t *testing.T) {
	long := strings.Repeat("\u5c71", 321)
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprint("role-", i))
	}
	for _, test := range []struct {
		name string
		in   auth.Person
		want auth.Person // zero: refused
	}{
		{"no subject", auth.Person{Organization: "org-1"}, auth.Person{}},
		{"a subject that is too long", auth.Person{Subject: long}, auth.Person{}},
		{"a subject that is no text", auth.Person{Subject: "a\xff"}, auth.Person{}},
		{"a long subject", auth.Person{Subject: long[3:]}, auth.Person{Subject: long[3:]}},
		{"long entries", auth.Person{Subject: "a", Organization: long, Language: long, TimeZone: long, Names: []string{long}},
			auth.Person{Subject: "a", Organization: long[3:], Language: long[3:], TimeZone: long[3:], Names: []string{long[3:]}}},
		{"entries that are no text", auth.Person{Subject: "a", Names: []string{"x\xffy"}}, auth.Person{Subject: "a", Names: []string{"x\ufffdy"}}},
		{"many entries", auth.Person{Subject: "a", Roles: many}, auth.Person{Subject: "a", Roles: many[:16]}},
		{"empty and repeated entries", auth.Person{Subject: "a", Mail: []string{"", "m", "m", "", "n"}}, auth.Person{Subject: "a", Mail: []string{"m", "n"}}},
		{"only empty entries", auth.Person{Subject: "a", Mail: []string{""}}, auth.Person{Subject: "a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			eachDirectory(t, func(d *directoryBench) {
				_, err := d.Learn(d.t.Context(), test.in, name(1), start)
				if refused := test.want.Subject == ""; (err != nil) != refused {
					d.t.Fatalf("got error %v, want one: %v", err, refused)
				} else if refused {
					d.wantTyped(1, "", 0)
					return
				}
				test.want.FirstSeen, test.want.LastSeen = start, start
				d.wantPerson(test.want)
			})
		})
	}
}

func TestByTyped(t *testing.T) {
	eachDirectory(t, func(d *directoryBench) {
		d.wantTyped(1, "", 0)
		d.learn(auth.Person{Subject: "acc-1"}, 1, 0) // the answer above is wrong at once
		d.wantTyped(1, "acc-1", 0)
		d.learn(auth.Person{Subject: "acc-1"}, 2, time.Hour) // two names, one account
		d.learn(auth.Person{Subject: "acc-1"}, 1, 2*time.Hour)
		for range 2 {
			d.wantTyped(1, "acc-1", 0) // since the first time
			d.wantTyped(2, "acc-1", time.Hour)
			d.wantTyped(3, "", 0)
			d.wantTyped(0, "", 0) // no name is nobody's
			d.reopen()
		}
		// A name that was given to somebody else.
		d.learn(auth.Person{Subject: "acc-2"}, 1, 3*time.Hour)
		for range 2 {
			d.wantTyped(1, "acc-2", 3*time.Hour)
			d.wantTyped(2, "acc-1", time.Hour)
			d.reopen()
		}
	})
}

func TestSince(t *testing.T) {
	eachDirectory(t, func(d *directoryBench) {
		want := func(want time.Time) {
			d.t.Helper()
			if got, err := d.Since(d.t.Context()); err != nil || !got.Equal(want) {
				d.t.Errorf("got %v, %v, want %v", got, err, want)
			}
		}
		want(time.Time{})
		d.learn(auth.Person{Subject: "acc-1"}, 0, time.Hour)
		d.learn(auth.Person{Subject: "acc-2"}, 0, 0)
		d.learn(auth.Person{Subject: "acc-3"}, 0, 2*time.Hour)
		want(start)
	})
}

// Who types names learns nothing from the work that they cause: known or not, a
// name costs the same statements, first and later, and somebody's login with the
// name in between changes nothing.
func TestNamesCostTheSame(t *testing.T) {
	b := newDatabase(t)
	d := &directoryBench{t, auth.NewDirectory(b.open()), b}
	d.learn(auth.Person{Subject: "acc-1"}, 1, 0)
	const known, unknown = 1, 2
	cost := func(typed byte) int64 {
		return b.counted(func() {
			if _, _, _, err := d.ByTyped(t.Context(), name(typed)); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, step := range []struct {
		name   string
		before func()
		want   int64
	}{
		{"at first", d.reopen, 1},
		{"again", func() {}, 1},
		{"after its owner logged in", func() { d.learn(auth.Person{Subject: "acc-1"}, known, 2*time.Hour) }, 1},
		{"after its owner changed", func() { d.learn(auth.Person{Subject: "acc-1", Mail: []string{"m"}}, known, 3*time.Hour) }, 1},
		{"after somebody else logged in", func() { d.learn(auth.Person{Subject: "acc-3"}, 3, 3*time.Hour) }, 1},
	} {
		step.before()
		// Opening runs statements of its own; they are not counted.
		if k, u := cost(known), cost(unknown); k != step.want || u != step.want {
			t.Errorf("%s: %d statements for a known name, %d for an unknown one, want %d", step.name, k, u, step.want)
		}
	}
}

// A login with what is known already is not worth a write.
func TestLearnWritesSeldom(t *testing.T) {
	b := newDatabase(t)
	d := &directoryBench{t, auth.NewDirectory(b.open()), b}
	p := auth.Person{Subject: "acc-1", Mail: []string{"m"}}
	d.learn(p, 1, 0)
	d.wantPerson(auth.Person{Subject: "acc-1", Mail: []string{"m"}, FirstSeen: start, LastSeen: start})
	d.wantTyped(1, "acc-1", 0)
	for _, step := range []struct {
		name   string
		p      auth.Person
		typed  byte
		after  time.Duration
		writes bool
	}{
		{"the same, soon", p, 1, time.Minute, false},
		{"no name, soon", p, 0, time.Minute, false},
		{"another name", p, 2, time.Minute, true},
		{"the same, an hour later", p, 1, 2 * time.Hour, true},
		{"another address", auth.Person{Subject: "acc-1", Mail: []string{"n"}}, 1, 2 * time.Hour, true},
	} {
		n := b.counted(func() { d.learn(step.p, step.typed, step.after) })
		if (n > 0) != step.writes {
			t.Errorf("%s: %d statements, want some: %v", step.name, n, step.writes)
		}
		if _, _, err := d.BySubject(t.Context(), "acc-1"); err != nil {
			t.Fatal(err)
		}
		d.wantTyped(1, "acc-1", 0)
	}
}

// What is handed out is the caller's.
func TestPeopleAreCopies(t *testing.T) {
	eachDirectory(t, func(d *directoryBench) {
		in := auth.Person{Subject: "acc-1", Mail: []string{"m"}}
		d.learn(in, 1, 0).Mail[0] = "changed"
		in.Mail[0] = "changed"
		want := auth.Person{Subject: "acc-1", Mail: []string{"m"}, FirstSeen: start, LastSeen: start}
		for range 2 {
			got, _, err := d.BySubject(d.t.Context(), "acc-1")
			if err != nil {
				d.t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				d.t.Errorf("person (-want +got):\n%s", diff)
			}
			got.Mail[0] = "changed"
		}
		d.learn(auth.Person{Subject: "acc-1"}, 0, time.Minute).Mail[0] = "changed"
		d.wantPerson(want)
	})
}

func TestDirectoryAtOnce(t *testing.T) {
	eachDirectory(t, func(d *directoryBench) {
		var wg sync.WaitGroup
		errs := make(chan error, 8)
		for w := range 8 {
			wg.Go(func() {
				errs <- func() error {
					for i := range 30 {
						subject := fmt.Sprint("acc-", (w+i)%4)
						if _, err := d.Learn(d.t.Context(), auth.Person{Subject: subject, Mail: []string{fmt.Sprint(i)}}, name(byte(i%5)), start.Add(time.Duration(i)*time.Hour)); err != nil {
							return err
						}
						if _, ok, err := d.BySubject(d.t.Context(), subject); err != nil || !ok {
							return fmt.Errorf("learned and not there: %v", err)
						}
						if _, _, _, err := d.ByTyped(d.t.Context(), name(byte(i%5))); err != nil {
							return err
						}
					}
					return nil
				}()
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				d.t.Error(err)
			}
		}
		// What memory says is what the store says.
		cold := auth.NewDirectory(d.b.open())
		for i := range byte(5) {
			warm, since, _, err := d.ByTyped(d.t.Context(), name(i))
			if err != nil {
				continue // the store was opened anew
			}
			want, wantSince, _, err := cold.ByTyped(d.t.Context(), name(i))
			if err != nil || warm != want || !since.Equal(wantSince) {
				d.t.Errorf("typed %d: memory says %q since %v, the store %q since %v, %v", i, warm, since, want, wantSince, err)
			}
		}
	})
}

func BenchmarkByTyped(b *testing.B) {
	d := auth.NewDirectory(newDatabase(b).open())
	if _, err := d.Learn(b.Context(), auth.Person{Subject: "acc-1"}, name(1), start); err != nil {
		b.Fatal(err)
	}
	for what, typed := range map[string]byte{"known": 1, "unknown": 2} {
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, _, err := d.ByTyped(b.Context(), name(typed)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
