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

// The key of digests was rotated: a name is found under the old one until its
// owner's next login, and leads where it led since the same time afterwards.
func TestDigestKeysRotate(t *testing.T) {
	eachDirectory(t, func(d *directoryBench) {
		const fresh, old, older = 1, 2, 3
		want := func(subject string, after time.Duration, typed byte, rest ...byte) {
			d.t.Helper()
			var olds [][16]byte
			for _, b := range rest {
				olds = append(olds, name(b))
			}
			got, since, ok, err := d.ByTyped(d.t.Context(), name(typed), olds...)
			if err != nil || ok != (subject != "") || got != subject || ok && !since.Equal(start.Add(after)) {
				d.t.Errorf("typed %d, %v: got %q since %v, %v, want %q since %v", typed, rest, got, since, err, subject, start.Add(after))
			}
		}
		learn := func(subject string, after time.Duration, typed byte, rest ...byte) {
			d.t.Helper()
			var olds [][16]byte
			for _, b := range rest {
				olds = append(olds, name(b))
			}
			if _, err := d.Learn(d.t.Context(), auth.Person{Subject: subject}, name(typed), start.Add(after), olds...); err != nil {
				d.t.Fatal(err)
			}
		}
		learn("acc-1", 0, older)
		want("acc-1", 0, old, older)
		learn("acc-1", time.Hour, old, older)
		want("acc-1", 0, fresh, old, older)
		want("", 0, fresh)
		learn("acc-1", 2*time.Hour, fresh, old, older, fresh)
		for range 2 {
			want("acc-1", 0, fresh, old, older)
			want("acc-1", 0, fresh)
			want("", 0, old, older)
			d.reopen()
		}
		// Under both keys, for a node did not know the new one yet: the current one counts.
		learn("acc-2", 3*time.Hour, old)
		want("acc-1", 0, fresh, old)
		want("acc-2", 3*time.Hour, old, fresh)
		learn("acc-2", 4*time.Hour, fresh, old)
		want("acc-2", 3*time.Hour, fresh, old)
		want("", 0, old)
		// More than four are not looked at.
		learn("acc-3", 0, 9)
		want("acc-3", 0, 5, 6, 7, 9)
		want("", 0, 5, 6, 7, 8, 9)
	})
}

// Two nodes: what one learned reaches the other with Reconcile at the latest.
func TestDirectoryOnTwoNodes(t *testing.T) {
	eachStore(t, func(t *testing.T, b backing) {
		b.open()
		one := &directoryBench{t, auth.NewDirectory(another(b)), b}
		two := &directoryBench{t, auth.NewDirectory(another(b)), b}
		reconcile := func(d *directoryBench) {
			t.Helper()
			if err := d.Reconcile(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		mail := func(d *directoryBench, subject, want string) {
			t.Helper()
			p, ok, err := d.BySubject(t.Context(), subject)
			if err != nil || !ok || p.Mail[0] != want {
				t.Errorf("got %v, %v, %v, want %s", p.Mail, ok, err, want)
			}
		}
		for i, first := range []string{"m", "o"} {
			second := first + "2"
			one.learn(auth.Person{Subject: "acc-1", Mail: []string{first}}, 1, time.Duration(i)*time.Hour)
			reconcile(two)
			mail(two, "acc-1", first)
			one.learn(auth.Person{Subject: "acc-1", Mail: []string{second}}, 1, time.Duration(i)*time.Hour)
			mail(two, "acc-1", first) // from memory
			reconcile(two)
			mail(two, "acc-1", second)
		}
		// A name that went to somebody else there comes back here.
		two.learn(auth.Person{Subject: "acc-1"}, 1, time.Hour)
		one.learn(auth.Person{Subject: "acc-2"}, 1, 2*time.Hour)
		reconcile(two)
		two.learn(auth.Person{Subject: "acc-1"}, 1, 2*time.Hour)
		two.wantTyped(1, "acc-1", 2*time.Hour)
		// More than are dropped one by one.
		for i := range auth.PeopleBatch {
			one.learn(auth.Person{Subject: fmt.Sprint("other-", i)}, 0, 0)
		}
		one.learn(auth.Person{Subject: "acc-1", Mail: []string{"last"}}, 0, 2*time.Hour)
		reconcile(two)
		mail(two, "acc-1", "last")
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
func TestNamesCostTheSame(t *testing.T) { eachDatabase(t, namesCostTheSame) }

func namesCostTheSame(t *testing.T, b *database) {
	d := &directoryBench{t, auth.NewDirectory(b.open()), b}
	d.learn(auth.Person{Subject: "acc-1"}, 1, 0)
	d.learn(auth.Person{Subject: "acc-4"}, 104, 0)
	const known, unknown, knownByOldKey = 1, 2, 4
	cost := func(typed byte) int64 {
		return b.counted(func() {
			if _, _, _, err := d.ByTyped(t.Context(), name(typed), name(typed+100)); err != nil {
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
		if k, u, o := cost(known), cost(unknown), cost(knownByOldKey); k != step.want || u != step.want || o != step.want {
			t.Errorf("%s: %d statements for a known name, %d for an unknown one, %d for one under the old key, want %d", step.name, k, u, o, step.want)
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
