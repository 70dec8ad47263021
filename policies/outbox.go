package policies

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Outbox keeps notices until they were delivered. What it promises:
//
//   - A key is told once: a second notice with the key of one that is kept does
//     nothing.
//   - Every notice is handed out until it is settled as sent or given up, and never
//     after.
//   - Nobody else has a notice while its lease runs. When a lease ran out, its
//     holder may have sent the notice and died before it could say so: from then on
//     the notice is handed out as [Uncertain], so that its text can say that it may
//     be a repetition.
//   - At most 100,000 notices wait. Beyond that they are counted, exactly, in one
//     notice per channel; see [OverflowTemplate].
//
// Time is an argument, and nodes share leases: their clocks may differ by less
// than a lease. One Outbox serves one deliverer, however many goroutines it has;
// each process opens its own over the shared database. It is safe for concurrent
// use.
type Outbox struct {
	store noticeStore

	onPut atomic.Pointer[func()]

	mu   sync.Mutex
	held map[string]claim // guarded by mu: what was handed out here and not settled, by key
}

// claim is the right to settle a notice: no other hand-out has its number.
type claim struct {
	attempt int
	ends    time.Time
}

// late reports whether a claim is too old to be kept in mind. Until then it can be
// settled late, if nobody else took the notice.
func (c claim) late(now time.Time) bool { return now.Sub(c.ends) > lateSettle }

// noticeStore is where an outbox keeps its notices. Each method is one transaction.
type noticeStore interface {
	put(ctx context.Context, n Notice, now time.Time) (bool, error)
	claim(ctx context.Context, owner string, now, ends time.Time, limit int) ([]Notice, error)
	// settle changes nothing and reports false unless the notice is open and, where
	// attempt is not 0, was last handed out as that attempt and not settled since.
	settle(ctx context.Context, key string, attempt int, s NoticeState, next, now time.Time) (bool, error)
	// state is how far a notice has come, and with which attempt; "" when there is none.
	state(ctx context.Context, key string) (s NoticeState, attempt int, err error)
	list(ctx context.Context, f NoticeFilter, created time.Time, key string, limit int) ([]Notice, error)
	counts(ctx context.Context) (map[NoticeState]int, error)
	purge(ctx context.Context, before time.Time, limit int) (int, error)
}

// OverflowTemplate names the notice that stands for those which found the outbox
// full. Its channel is theirs and its To is empty: it is for whoever runs the
// channel. Its values are "channel" and "count", the number of notices it stands
// for. One that was handed out counts no further; the next overflow begins
// another, to be sent a minute later.
const OverflowTemplate = "outbox.overflow"

const (
	maxOpen       = 100_000 // notices that wait, on all nodes; overflow notices come on top
	maxClaim      = 1000
	overflowDelay = time.Minute
	lateSettle    = time.Hour
	purgeBatch    = 10_000

	maxNoticeKey    = 512   // bytes
	maxNoticeName   = 256   // bytes, of channels, templates, addressees and owners
	maxNoticeValues = 16384 // bytes of names and values together
)

// ErrLeaseLost says that a notice is no longer the caller's to settle: its lease
// ran out and somebody else has it, or it was settled.
var ErrLeaseLost = errors.New("the notice is no longer held")

// NewOutbox keeps notices in db, which somebody else opened, migrated and will
// close. The dialect is "sqlite" or "postgres".
func NewOutbox(db *sql.DB, dialectName string) (*Outbox, error) {
	d, err := parseDialect(dialectName)
	if err != nil {
		return nil, err
	}
	return newOutbox(&sqlNotices{db: db, dialect: d}), nil
}

func newOutbox(s noticeStore) *Outbox { return &Outbox{store: s, held: make(map[string]claim)} }

// NoticeFilter selects notices. The zero value selects all. Fields that are set
// must all hold.
type NoticeFilter struct {
	State    NoticeState
	Channel  string
	Template string
	To       string
}

// OnPut registers f to be called after each notice that Put kept, so that whoever
// delivers need not wait for the next time it looks. f must be quick.
func (o *Outbox) OnPut(f func()) { o.onPut.Store(&f) }

// Put keeps n, to be handed out from n.Next on (zero: at once), and reports whether
// it is new: false when one with its key is kept, or when the outbox is full and n
// was counted. State, Created, Attempts and MessageID are the outbox's to set.
// [FieldErrors] when n is not valid.
func (o *Outbox) Put(ctx context.Context, n Notice, now time.Time) (bool, error) {
	if err := n.check(); err != nil {
		return false, err
	}
	created, err := o.store.put(ctx, n, toMicro(now))
	if err != nil {
		return false, fmt.Errorf("keeping notice %.64q: %w", n.Key, err)
	}
	if f := o.onPut.Load(); created && f != nil {
		(*f)()
	}
	return created, nil
}

// Claim hands out up to limit notices (at most 1,000) that are due at now, and
// first those that have been due for longest, in the order in which they came into
// being. It leases them to owner until now + lease. Their state is [Leased], or
// [Uncertain] where an earlier attempt may have arrived. The caller settles each.
func (o *Outbox) Claim(ctx context.Context, owner string, now time.Time, lease time.Duration, limit int) ([]Notice, error) {
	switch {
	case lease <= 0:
		return nil, fmt.Errorf("claiming notices: a lease of %v; want more than 0", lease)
	case owner == "" || len(owner) > maxNoticeName || !plainText(owner, false):
		return nil, fmt.Errorf("claiming notices: the owner must have a name of 1 to %d bytes of plain text", maxNoticeName)
	case limit <= 0:
		return nil, nil
	}
	now = toMicro(now)
	ends := toMicro(now.Add(lease))
	found, err := o.store.claim(ctx, owner, now, ends, min(limit, maxClaim))
	if err != nil {
		return nil, fmt.Errorf("claiming notices: %w", err)
	}
	slices.SortFunc(found, func(a, b Notice) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Key, b.Key))
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, c := range o.held {
		if c.late(now) {
			delete(o.held, key)
		}
	}
	for _, n := range found {
		o.held[n.Key] = claim{n.Attempts, ends}
	}
	return found, nil
}

// Settle says what became of a notice that was handed out:
//
//   - [Sent]: the other side took it.
//   - [Pending]: it did not arrive; try again at next. A notice that is uncertain
//     stays so.
//   - [Uncertain]: it may have arrived; try again at next, and say so.
//   - [GivenUp]: refused for good, or tried too often.
//
// Sent holds whoever says it. For all else the caller must hold the notice, or
// gets [ErrLeaseLost]; one whose lease ran out holds it for another hour, or until
// it is handed out again. Settling again as before changes nothing. An error that is
// [ErrUncertain] is a reason to settle again.
func (o *Outbox) Settle(ctx context.Context, key string, s NoticeState, next, now time.Time) error {
	o.mu.Lock()
	held := o.held[key]
	o.mu.Unlock()
	attempt := held.attempt
	if held.late(now) {
		attempt = 0
	}
	switch s {
	case Sent:
		attempt, next = 0, time.Time{}
	case GivenUp:
		next = time.Time{}
	case Pending, Uncertain:
		if next.IsZero() {
			next = now
		}
	default:
		return fmt.Errorf("settling notice %.64q as %q: want pending, uncertain, sent or given_up", key, s)
	}
	done := false
	var err error
	if s == Sent || attempt > 0 {
		done, err = o.store.settle(ctx, key, attempt, s, toMicro(next), toMicro(now))
	}
	if err == nil && !done {
		var was NoticeState
		var last int
		was, last, err = o.store.state(ctx, key)
		if again := was == s && (!s.open() || last == attempt && attempt > 0); err == nil && !again {
			err = ErrLeaseLost
		}
	}
	if err != nil {
		return fmt.Errorf("settling notice %.64q as %s: %w", key, s, err)
	}
	o.mu.Lock()
	delete(o.held, key)
	o.mu.Unlock()
	return nil
}

// List is a page of notices, the newest first, and the cursor of the next page; an
// empty cursor says that this was the last. A limit of 0 means 50; at most 200.
func (o *Outbox) List(ctx context.Context, f NoticeFilter, cursor string, limit int) ([]Notice, string, error) {
	var faults FieldErrors
	switch f.State {
	case "", Pending, Leased, Uncertain, Sent, GivenUp:
	default:
		faults = append(faults, FieldError{"state", fmt.Sprintf("%.64q is none; want pending, leased, uncertain, sent or given_up", f.State)})
	}
	for _, t := range []struct{ field, text string }{{"channel", f.Channel}, {"template", f.Template}, {"to", f.To}} {
		if len(t.text) > maxNoticeName || !plainText(t.text, false) {
			faults = append(faults, FieldError{t.field, fmt.Sprintf("want at most %d bytes of plain text", maxNoticeName)})
		}
	}
	switch {
	case limit == 0:
		limit = 50
	case limit < 0 || limit > 200:
		faults = append(faults, FieldError{"limit", fmt.Sprintf("%d is not between 1 and 200", limit)})
	}
	var created time.Time
	number, key, _ := strings.Cut(cursor, "/")
	if cursor != "" {
		us, err := strconv.ParseInt(number, 10, 64)
		if err != nil || len(key) > maxNoticeKey || !plainText(key, false) {
			faults = append(faults, FieldError{"cursor", "is not one that a page ended with; begin without one"})
		}
		created = time.UnixMicro(us)
	}
	if len(faults) > 0 {
		return nil, "", faults
	}
	found, err := o.store.list(ctx, f, created, key, limit+1)
	if err != nil {
		return nil, "", fmt.Errorf("listing notices: %w", err)
	}
	if len(found) <= limit {
		return found, "", nil
	}
	found = found[:limit]
	last := found[limit-1]
	return found, strconv.FormatInt(last.Created.UnixMicro(), 10) + "/" + last.Key, nil
}

// Counts is how many notices are in which state. States without any are left out.
func (o *Outbox) Counts(ctx context.Context) (map[NoticeState]int, error) {
	n, err := o.store.counts(ctx)
	if err != nil {
		return nil, fmt.Errorf("counting notices: %w", err)
	}
	return n, nil
}

// Purge deletes notices that were sent or given up before then, 10,000 in a
// transaction, and says how many. Their keys are free again.
func (o *Outbox) Purge(ctx context.Context, before time.Time) (int, error) {
	total := 0
	for {
		n, err := o.store.purge(ctx, toMicro(before), purgeBatch)
		if err != nil {
			return total, fmt.Errorf("deleting old notices: %w", err)
		}
		total += n
		if n < purgeBatch {
			return total, nil
		}
	}
}

// check tells every fault of a notice that is to be kept.
func (n Notice) check() error {
	var faults FieldErrors
	for _, f := range []struct {
		field, text string
		longest     int
		required    bool
	}{
		{"key", n.Key, maxNoticeKey, true},
		{"channel", n.Channel, maxNoticeName, true},
		{"template", n.Template, maxNoticeName, true},
		{"to", n.To, maxNoticeName, false},
	} {
		switch {
		case f.text == "" && f.required:
			faults = append(faults, FieldError{f.field, "is missing"})
		case len(f.text) > f.longest:
			faults = append(faults, FieldError{f.field, fmt.Sprintf("has %d bytes; at most %d", len(f.text), f.longest)})
		case !plainText(f.text, false):
			faults = append(faults, FieldError{f.field, "contains control characters or is not UTF-8"})
		}
	}
	size := 0
	for name, value := range n.Values {
		size += len(name) + len(value)
		if !utf8.ValidString(name) || !utf8.ValidString(value) || strings.ContainsRune(name+value, 0) {
			faults = append(faults, FieldError{"values", fmt.Sprintf("%.64q is not UTF-8 or contains NUL", name)})
			break
		}
	}
	if size > maxNoticeValues {
		faults = append(faults, FieldError{"values", fmt.Sprintf("have %d bytes; at most %d", size, maxNoticeValues)})
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// begun is n as it is kept first.
func (n Notice) begun(now time.Time) Notice {
	n.State, n.Created, n.Attempts, n.Owner = Pending, now, 0, ""
	n.Next = toMicro(n.Next)
	if n.Next.Before(now) {
		n.Next = now
	}
	n.MessageID = newMessageID()
	return n
}

// overflow is the notice that begins to count what a channel lost.
func overflow(channel string, now time.Time) Notice {
	n := Notice{Key: "overflow/" + channel + "/" + newID(now), Channel: channel, Template: OverflowTemplate, Next: now.Add(overflowDelay)}
	return n.begun(now)
}

// newMessageID is unguessable. It is made once, when the key comes into being, and
// kept with it.
func newMessageID() string { return "<" + strings.ToLower(rand.Text()) + "@kidoban>" }
