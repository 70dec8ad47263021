package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Person is what the backend said about an account.
type Person struct {
	Subject      string    `json:"subject"` // the backend's stable identifier
	Organization string    `json:"organization,omitempty"`
	Names        []string  `json:"names,omitempty"`
	Mail         []string  `json:"mail,omitempty"` // where notices go; the first one is preferred
	Roles        []string  `json:"roles,omitempty"`
	Language     string    `json:"language,omitempty"`  // BCP 47
	TimeZone     string    `json:"time_zone,omitempty"` // IANA
	FirstSeen    time.Time `json:"first_seen"`
	LastSeen     time.Time `json:"last_seen"` // to the hour
}

const (
	personListMax = 16        // names, addresses or roles
	personTextMax = 320       // runes of one of them; a subject is refused instead of cut
	lastSeenEvery = time.Hour // LastSeen alone is not worth a write more often
	digestsMax    = 4         // of one typed name: under the current key and older ones
	peopleBatch   = 1000      // accounts that Reconcile drops one by one
	directorySize = 1 << 15   // people, and as many typed names twice over, in memory
)

// DirectoryStore keeps the directory. The duties are those of [SessionStore].
type DirectoryStore interface {
	// learn passes the person as stored, or one with only the subject, to merge,
	// and stores the result. If typed is not zero, it then leads to the person and
	// the digests in old lead nowhere; the time since when any of them did is kept
	// while they go on leading there.
	learn(ctx context.Context, subject string, typed [16]byte, old [][16]byte, now time.Time, merge func(*Person)) (Person, error)
	person(ctx context.Context, subject string) (Person, bool, error)
	// typed is what the first of the digests that leads anywhere leads to. It does the
	// same work whether or not there is anything under them.
	typed(ctx context.Context, digests [][16]byte) (typedName, error)
	// oldest is when the first account was seen; zero while there is none.
	oldest(ctx context.Context) (time.Time, error)
	// revision is as that of [SessionStore]; changedPeople is up to limit accounts that
	// were written after it.
	revision(ctx context.Context) (int64, error)
	changedPeople(ctx context.Context, revision int64, limit int) ([]string, error)
}

// Directory is what is known about accounts. The store has all of it; up to
// 65,536 people and 131,072 typed names are in memory.
type Directory struct {
	store  DirectoryStore
	people *recent[string, Person]
	names  *recent[[16]byte, string] // where a typed name leads; spares Learn a write, answers nobody

	reconciling sync.Mutex // guards taken
	taken       int64      // changes up to this revision are taken over; 0: none yet
}

// typedName is where a typed name leads, as stored.
type typedName struct {
	subject string
	since   time.Time
}

// NewDirectory returns the directory in store.
func NewDirectory(store DirectoryStore) *Directory {
	return &Directory{
		store:  store,
		people: newRecent[string, Person](directorySize),
		names:  newRecent[[16]byte, string](2 * directorySize),
	}
}

// Learn takes over what the backend said about an account, and that the name with
// the digest typed leads to it (the zero digest: no name was typed). What p leaves
// empty keeps its value, what p has replaces it: mail addresses too, because
// notices and codes must not go on to an address its owner gave up. FirstSeen is
// kept. Lists are cut to 16 entries, entries to 320 runes.
//
// old is digests of the same name under older keys: what they led to moves to
// typed. The first three count.
func (d *Directory) Learn(ctx context.Context, p Person, typed [16]byte, now time.Time, old ...[16]byte) (Person, error) {
	old = slices.Clone(old[:min(len(old), digestsMax-1)])
	old = slices.DeleteFunc(old, func(digest [16]byte) bool { return digest == typed })
	now = stored(now)
	switch {
	case p.Subject == "":
		return Person{}, errors.New("learning about a person: no subject: the backend must say who it is")
	case utf8.RuneCountInString(p.Subject) > personTextMax || !storable(p.Subject):
		return Person{}, fmt.Errorf("learning about a person: a subject of %d bytes: want at most %d runes of UTF-8 without NUL", len(p.Subject), personTextMax)
	}
	p = p.bounded()
	merge := func(old *Person) { old.merge(p, now) }
	if old, ok := d.people.get(p.Subject); ok {
		next := old.clone()
		merge(&next)
		leads, known := d.names.get(typed)
		same := typed == [16]byte{} || known && leads == p.Subject
		if same && next.equalButSeen(old) && next.LastSeen.Sub(old.LastSeen) < lastSeenEvery {
			return old.clone(), nil
		}
	}
	d.names.drop(typed)
	epoch := d.names.now()
	next, err := d.store.learn(ctx, p.Subject, typed, old, now, merge)
	d.people.drop(p.Subject)
	if err != nil {
		return Person{}, fmt.Errorf("learning about a person: %w", err)
	}
	if typed != [16]byte{} {
		d.names.putAt(epoch, typed, p.Subject)
	}
	return next, nil
}

// Since is when the first account was seen, and so when this installation began;
// zero while there is none.
func (d *Directory) Since(ctx context.Context) (time.Time, error) { return d.store.oldest(ctx) }

// BySubject is what is known about an account.
func (d *Directory) BySubject(ctx context.Context, subject string) (Person, bool, error) {
	if p, ok := d.people.get(subject); ok {
		return p.clone(), true, nil
	}
	if !storable(subject) {
		return Person{}, false, nil
	}
	epoch := d.people.now()
	p, ok, err := d.store.person(ctx, subject)
	if err != nil {
		return Person{}, false, fmt.Errorf("looking up a person: %w", err)
	}
	if ok {
		d.people.putAt(epoch, subject, p.clone())
	}
	return p, ok, nil
}

// ByTyped is the account that a typed name led to at its last completed login,
// and when the account's first login under that name was. digest is a keyed digest
// of the name's canonical form under the current key, old those under older keys
// that are still looked up; the first three count. The first that leads anywhere
// answers.
//
// Whoever types names must not learn from the time it takes which of them exist,
// nor who used one lately, nor under which key. So the same statement runs each
// time, which looks up every digest and returns one row, and no answer is kept.
func (d *Directory) ByTyped(ctx context.Context, digest [16]byte, old ...[16]byte) (subject string, since time.Time, ok bool, err error) {
	digests := append([][16]byte{digest}, old[:min(len(old), digestsMax-1)]...)
	name, err := d.store.typed(ctx, digests)
	if err != nil {
		return "", time.Time{}, false, fmt.Errorf("looking up a typed name: %w", err)
	}
	return name.subject, name.since, name.subject != "", nil
}

// Reconcile forgets what is in memory and was changed by other nodes since the last
// call, or, at the first call, everything. It is to be called as that of [Sessions] is.
func (d *Directory) Reconcile(ctx context.Context) error {
	d.reconciling.Lock()
	defer d.reconciling.Unlock()
	latest, err := d.store.revision(ctx)
	if err != nil {
		return fmt.Errorf("reconciling the directory: %w", err)
	}
	if latest == d.taken {
		return nil
	}
	var people []string
	all := d.taken == 0 || latest < d.taken // the first call, or an older copy of the database
	if !all {
		if people, err = d.store.changedPeople(ctx, d.taken, peopleBatch); err != nil {
			return fmt.Errorf("reconciling the directory: %w", err)
		}
	}
	if all || len(people) == peopleBatch {
		d.people.clear()
	}
	for _, subject := range people {
		d.people.drop(subject)
	}
	if all || len(people) > 0 {
		d.names.clear()
	}
	d.taken = latest
	return nil
}

// merge takes over what q says.
func (p *Person) merge(q Person, now time.Time) {
	for _, f := range []struct{ to, from *string }{
		{&p.Organization, &q.Organization}, {&p.Language, &q.Language}, {&p.TimeZone, &q.TimeZone},
	} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	for _, f := range []struct{ to, from *[]string }{{&p.Names, &q.Names}, {&p.Mail, &q.Mail}, {&p.Roles, &q.Roles}} {
		if len(*f.from) > 0 {
			*f.to = slices.Clone(*f.from)
		}
	}
	if p.FirstSeen.IsZero() || now.Before(p.FirstSeen) {
		p.FirstSeen = now
	}
	if now.After(p.LastSeen) {
		p.LastSeen = now
	}
}

func (p Person) equalButSeen(q Person) bool {
	return p.Subject == q.Subject && p.Organization == q.Organization && p.Language == q.Language && p.TimeZone == q.TimeZone &&
		slices.Equal(p.Names, q.Names) && slices.Equal(p.Mail, q.Mail) && slices.Equal(p.Roles, q.Roles)
}

func (p Person) clone() Person {
	p.Names, p.Mail, p.Roles = slices.Clone(p.Names), slices.Clone(p.Mail), slices.Clone(p.Roles)
	return p
}

// bounded cuts what is too long; empty entries and repetitions go.
func (p Person) bounded() Person {
	p.Organization, p.Language, p.TimeZone = shortened(p.Organization), shortened(p.Language), shortened(p.TimeZone)
	for _, list := range []*[]string{&p.Names, &p.Mail, &p.Roles} {
		var kept []string
		for _, s := range *list {
			if s = shortened(s); s != "" && !slices.Contains(kept, s) {
				kept = append(kept, s)
			}
			if len(kept) == personListMax {
				break
			}
		}
		*list = kept
	}
	return p
}

// shortened is the first personTextMax runes of s, as UTF-8.
func shortened(s string) string {
	if len(s) > personTextMax {
		n := 0
		for i := range s {
			if n++; n > personTextMax {
				s = s[:i]
				break
			}
		}
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
