package policies

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/rules"
)

var (
	// ErrNotFound says that there is no such decision, or that it is over.
	ErrNotFound = errors.New("no such decision")
	// ErrHeldOff is the kind of every [HeldOffError].
	ErrHeldOff = errors.New("held off")
	// ErrFull says that the live set is at its bound.
	ErrFull = errors.New("too many live decisions")
)

// HeldOffError says that a rule may not decide on a subject, because somebody
// lifted what it had decided.
type HeldOffError struct {
	Rule  rules.ID
	Until time.Time
}

func (e *HeldOffError) Error() string {
	return fmt.Sprintf("rule %s is held off until %s, because its decision on this subject was lifted; register as an operator to override", e.Rule, e.Until.Format(time.RFC3339))
}

func (e *HeldOffError) Unwrap() error { return ErrHeldOff }

const (
	// maxLive bounds the memory of the live set. Rules and playbooks stop there;
	// operators have room beyond, so that an attack cannot keep them out.
	maxLive         = 2_000_000
	maxLiveOperator = maxLive + 50_000
	// maxBatch bounds one transaction.
	maxBatch = 10_000
	// actsBatch bounds one query for acts.
	actsBatch = 1000
	// keepEnded is how long the store keeps decisions that ended.
	keepEnded = 366 * 24 * time.Hour
	// coalesce is the part of its length by which a rule must extend a decision
	// within one window before that is written: 30 s of half an hour. Without it,
	// every attempt of an attack would be a transaction.
	coalesce = 60
	// storeTimeout bounds queries of one decision or one page.
	storeTimeout = 5 * time.Second
)

// Decisions is the live set of decisions. It is safe for concurrent use. Match
// takes no lock, does no I/O and allocates nothing; changes are made one at a
// time, first in the store, then here. At most 2,050,000 decisions are live.
type Decisions struct {
	store DecisionStore
	live  *index
	holds holds

	announce Announce // nil: nobody is told

	writing chan struct{} // holds one token: the right to write store, live and seen
	seen    uint64        // revision up to which live reflects the store; owned by the token

	mu      sync.Mutex
	changed []func(Decision) // guarded by mu
}

// Subject is what a request is about, as far as it is known. Empty fields are
// nobody.
type Subject struct {
	Address     netip.Addr
	ASN         uint32
	Country     string // upper case, as decisions have it
	Account     string
	Session     string
	Device      string
	Credential  string // its hash
	Fingerprint string
	// OwnDevice: the account knows the device. What rules and playbooks decided on
	// address, network, ASN, country, fingerprint or account, where strangers may
	// have given cause, is then not about it.
	OwnDevice bool
}

// OpenDecisions loads what is live at now. A million decisions take some seconds.
func OpenDecisions(ctx context.Context, store DecisionStore, now time.Time, options ...Option) (*Decisions, error) {
	d := &Decisions{store: store, live: newIndex(), writing: make(chan struct{}, 1)}
	for _, set := range options {
		set(d)
	}
	at := micros(now)
	latest, err := store.Standing(ctx, now, func(s Stored) {
		if s.State == StateLive && micros(s.Until) > at {
			d.live.put(&s.Decision, s.Revision, true)
		}
		d.holds.add(&s.Decision)
	})
	if err != nil {
		return nil, fmt.Errorf("loading decisions: %w", err)
	}
	d.seen = latest
	d.writing <- struct{}{}
	return d, nil
}

// Match is the strongest decision that covers s at now, and the strongest of
// those in shadow; zero values (ID == "") when there are none.
func (d *Decisions) Match(s Subject, now time.Time) (enforced, shadow Decision) {
	found := strongest{at: now.UnixMicro(), own: s.OwnDevice}
	d.live.match(&s, &found)
	if found.enforced != nil {
		enforced = found.enforced.decision()
	}
	if found.shadow != nil {
		shadow = found.shadow.decision()
	}
	return enforced, shadow
}

// Register makes n last. When it returns without error, the decision is durable
// and visible to Match. If one with the same maker, subject, action and mode is
// live, that one is extended to the later end and returned; it never ends earlier
// than before. A rule that is held off gets a [HeldOffError], invalid fields are
// [FieldErrors]. After an error that is [ErrUncertain] it may be durable, and is
// visible after the next Reconcile if so; registering it again is safe.
//
// Within one window, a rule's extension by less than a 60th of the decision's
// length is not written, and the decision is returned as it is.
//
// n.Entry is marked as acted (see [Decisions.Acted]) together with the change, or
// with the finding that there is nothing to change. What a rule registers without
// anything being written marks nothing.
func (d *Decisions) Register(ctx context.Context, n Decision, now time.Time) (Registration, error) {
	out, err := d.RegisterAll(ctx, []Decision{n}, now)
	if err != nil {
		return Registration{}, err
	}
	return out[0], nil
}

// RegisterAll is Register for up to 10,000 decisions in one transaction: all
// valid ones or, if anything but a hold-off is in the way, none. Where a rule is
// held off, the result is the zero Registration and the error joins the
// [HeldOffError]s; the others are registered nevertheless.
func (d *Decisions) RegisterAll(ctx context.Context, ns []Decision, now time.Time) ([]Registration, error) {
	if len(ns) > maxBatch {
		return nil, fmt.Errorf("registering %d decisions: at most %d at a time; send them in parts", len(ns), maxBatch)
	}
	now = toMicro(now)
	out := make([]Registration, len(ns))
	var held []error
	hold := func(i int, end time.Time) {
		held = append(held, &HeldOffError{Rule: ns[i].Rule, Until: end})
		out[i] = Registration{}
	}
	var todo []int
	ns = append([]Decision(nil), ns...)
	for i := range ns {
		n, err := ns[i].canonical(now)
		if err != nil {
			if len(ns) > 1 {
				err = fmt.Errorf("decision %d of %d: %w", i+1, len(ns), err)
			}
			return nil, err
		}
		n.ID, n.Created, n.Force = "", now, false
		n.Lifted, n.LiftedBy, n.HoldOff = time.Time{}, "", time.Time{}
		ns[i] = n
		if n.Origin == OriginRule {
			if end := d.holds.end(&n); end > micros(now) {
				hold(i, fromMicros(end))
				continue
			}
			if e := d.live.find(&n); e != nil && e.until > micros(now) && e.absorbs(&n) {
				out[i].Decision = e.decision()
				continue
			}
		}
		todo = append(todo, i)
	}
	if len(todo) == 0 {
		return out, errors.Join(held...)
	}

	if err := d.acquire(ctx); err != nil {
		return nil, err
	}
	var seen []Stored // as the transaction leaves them, in its order; revision 0 is its own
	var heldInStore map[int]time.Time
	room := maxLiveOperator - d.live.size.Load()
	revision, err := d.store.Update(ctx, func(tx DecisionTx) error {
		seen, heldInStore = seen[:0], make(map[int]time.Time)
		room, wrote := room, false
		for _, i := range todo {
			if ns[i].Origin == OriginRule {
				end, err := tx.HoldOff(ns[i].Rule, ns[i].Scope, ns[i].Value)
				if err != nil {
					return err
				}
				if end.After(now) {
					heldInStore[i] = end
					continue
				}
			}
			if ns[i].Entry != "" {
				wrote = true
				if err := tx.Act(ns[i].Entry, now); err != nil {
					return err
				}
			}
			r, was, err := d.registerOne(tx, ns[i], now, room)
			if err != nil {
				return err
			}
			out[i] = r
			switch r.Change {
			case Unchanged: // it may have come from another node and not be here yet
				seen = append(seen, Stored{Decision: r.Decision, Revision: was})
				continue
			case Registered:
				room--
			}
			wrote = true
			seen = append(seen, Stored{Decision: r.Decision})
			if err := d.intend(tx, r.Change, r.Decision, now); err != nil {
				return err
			}
		}
		if !wrote {
			return errNothingToDo
		}
		return nil
	})
	if err != nil && !errors.Is(err, errNothingToDo) {
		d.release()
		return nil, fmt.Errorf("registering %d decisions: %w", len(todo), err)
	}
	// A batch may name one subject twice: what was seen last has the later end.
	last := make(map[string]int, len(seen))
	for i := range seen {
		last[seen[i].ID] = i
	}
	var news []Decision
	for i, s := range seen {
		if s.Revision == 0 {
			s.Revision = revision
		}
		if last[s.ID] == i && d.live.put(&s.Decision, s.Revision, false) {
			news = append(news, s.Decision)
		}
	}
	d.release()
	for _, i := range todo {
		if j, ok := last[out[i].ID]; ok {
			out[i].Decision = seen[j].Decision
		}
	}
	for i, end := range heldInStore {
		hold(i, end)
	}
	d.tell(news)
	return out, errors.Join(held...)
}

// registerOne registers n in a transaction. was is the revision of a decision that
// is unchanged.
func (d *Decisions) registerOne(tx DecisionTx, n Decision, now time.Time, room int64) (r Registration, was uint64, err error) {
	old, found, err := tx.Live(n)
	if err != nil {
		return Registration{}, 0, err
	}
	if found && old.Until.After(now) {
		merged, longer := old.extended(n)
		if !longer {
			return Registration{Decision: merged}, old.Revision, nil
		}
		return Registration{merged, Extended}, 0, tx.Put(merged, StateLive)
	}
	if room <= 0 || n.Origin != OriginOperator && room <= maxLiveOperator-maxLive {
		return Registration{}, 0, ErrFull
	}
	if found {
		if err := tx.Put(old.Decision, StateLapsed); err != nil {
			return Registration{}, 0, err
		}
	}
	n.ID = newID(now)
	return Registration{n, Registered}, 0, tx.Put(n, StateLive)
}

// absorbs reports whether registering n would change e by too little to write.
func (e *entry) absorbs(n *Decision) bool {
	until := micros(n.Until)
	return until <= e.until ||
		n.Window.Equal(fromMicros(e.prose.window)) && e.prose.window != 0 && until-e.until < (e.until-e.created)/coalesce
}

// extended is d with the later end of d and n. What n says of its cause replaces
// what d said only if n makes it longer.
func (d Stored) extended(n Decision) (Decision, bool) {
	m := d.Decision
	if !n.Until.After(m.Until) {
		return m, false
	}
	m.Until = n.Until
	if n.Reason != "" {
		m.Reason = n.Reason
	}
	if n.Incident != "" {
		m.Incident = n.Incident
	}
	if n.Window.After(m.Window) {
		m.Window = n.Window
	}
	m.Entry = cmp.Or(n.Entry, m.Entry)
	return m, true
}

// Lift takes a decision back, in the name of act.By. Its rule may not decide the
// same subject again until the decision would have ended, but for an hour at least
// and a day at most. Lifting twice changes nothing. act.Entry is marked as acted in
// either case. ErrNotFound when there is no such decision or it is over.
func (d *Decisions) Lift(ctx context.Context, id string, act Act, now time.Time) (Decision, error) {
	out, err := d.lift(ctx, id, act, toMicro(now))
	if err != nil {
		return Decision{}, fmt.Errorf("lifting decision %.64q: %w", id, err)
	}
	return out, nil
}

func (d *Decisions) lift(ctx context.Context, id string, act Act, now time.Time) (Decision, error) {
	if act.By == "" || len(act.By) > maxName || !plainText(act.By, false) {
		return Decision{}, FieldErrors{{"lifted_by", fmt.Sprintf("must name who lifts, in 1 to %d bytes of plain text", maxName)}}
	}
	if len(act.Entry) > maxName || !plainText(act.Entry, false) {
		return Decision{}, FieldErrors{{"entry", fmt.Sprintf("want at most %d bytes of plain text", maxName)}}
	}
	if !isID(id) {
		return Decision{}, ErrNotFound
	}
	if err := d.acquire(ctx); err != nil {
		return Decision{}, err
	}
	var s Stored
	changed := false
	revision, err := d.store.Update(ctx, func(tx DecisionTx) (err error) {
		changed = false
		if s, err = tx.ByID(id); err != nil {
			return err
		}
		if s.State != StateLifted && (s.State != StateLive || !s.Until.After(now)) {
			return fmt.Errorf("%w: it ended on %s", ErrNotFound, s.Until.Format(time.RFC3339))
		}
		if act.Entry != "" {
			if err := tx.Act(act.Entry, now); err != nil {
				return err
			}
		}
		if s.State == StateLifted {
			if act.Entry == "" {
				return errNothingToDo
			}
			return nil
		}
		changed = true
		s.Lifted, s.LiftedBy, s.HoldOff = now, act.By, holdOff(s.Decision, now)
		s.Entry = cmp.Or(act.Entry, s.Entry)
		if err := tx.Put(s.Decision, StateLifted); err != nil {
			return err
		}
		return d.intend(tx, Lifted, s.Decision, now)
	})
	if err != nil && !errors.Is(err, errNothingToDo) {
		d.release()
		return Decision{}, err
	}
	if !changed {
		d.release()
		return s.Decision, nil
	}
	d.live.drop(&s.Decision, revision)
	d.holds.add(&s.Decision)
	d.release()
	d.tell([]Decision{s.Decision})
	return s.Decision, nil
}

// Relate says to which incident decisions belong, by their ids; at most 10,000 at a time.
// One that belongs to an incident already stays there, and one that is not kept is left
// out. Nobody is told.
func (d *Decisions) Relate(ctx context.Context, incidents map[string]string, now time.Time) error {
	if len(incidents) == 0 {
		return nil
	}
	if len(incidents) > maxBatch {
		return fmt.Errorf("relating %d decisions to incidents: at most %d at a time; send them in parts", len(incidents), maxBatch)
	}
	if err := d.acquire(ctx); err != nil {
		return err
	}
	defer d.release()
	var changed []Stored
	revision, err := d.store.Update(ctx, func(tx DecisionTx) error {
		changed = nil
		for _, id := range slices.Sorted(maps.Keys(incidents)) {
			s, err := tx.ByID(id)
			if errors.Is(err, ErrNotFound) || err == nil && s.Incident != "" {
				continue
			}
			if err != nil {
				return err
			}
			s.Incident = incidents[id]
			if err := tx.Put(s.Decision, s.State); err != nil {
				return err
			}
			changed = append(changed, s)
		}
		if len(changed) == 0 {
			return errNothingToDo
		}
		return nil
	})
	if errors.Is(err, errNothingToDo) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("relating %d decisions to incidents: %w", len(incidents), err)
	}
	for i := range changed {
		if s := &changed[i]; s.State == StateLive && s.Until.After(now) {
			d.live.put(&s.Decision, revision, false)
		}
	}
	return nil
}

// holdOff is how long the rule behind d is held off when d is lifted at now.
func holdOff(d Decision, now time.Time) time.Time {
	if d.Rule == "" {
		return time.Time{}
	}
	end := now.Add(minHoldOff)
	if d.Until.After(end) {
		end = d.Until
	}
	if latest := now.Add(maxHoldOff); end.After(latest) {
		end = latest
	}
	return end
}

// Get is the decision with an id, in whatever state; ErrNotFound when there is
// none. It asks the store and gives up after 5 s, or with ctx.
func (d *Decisions) Get(ctx context.Context, id string, now time.Time) (Decision, error) {
	if !isID(id) {
		return Decision{}, fmt.Errorf("decision %.64q: %w", id, ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	s, err := d.store.ByID(ctx, id)
	if err != nil {
		return Decision{}, fmt.Errorf("decision %.64q: %w", id, err)
	}
	return s.Decision, nil
}

// List is a page of decisions, the newest first, and the cursor of the next page;
// an empty cursor says that this was the last. It asks the store and gives up
// after 5 s, or with ctx.
func (d *Decisions) List(ctx context.Context, q DecisionQuery, now time.Time) ([]Decision, string, error) {
	q, err := q.canonical()
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	found, err := d.store.List(ctx, q, toMicro(now), q.Limit+1)
	if err != nil {
		return nil, "", fmt.Errorf("listing decisions: %w", err)
	}
	next := ""
	if len(found) > q.Limit {
		found = found[:q.Limit]
		next = found[q.Limit-1].ID
	}
	page := make([]Decision, len(found))
	for i := range found {
		page[i] = found[i].Decision
	}
	return page, next, nil
}

func (q DecisionQuery) canonical() (DecisionQuery, error) {
	var faults FieldErrors
	if q.Value != "" {
		v, _, fault := canonicalValue(q.Scope, q.Value)
		if fault != nil {
			faults = append(faults, *fault)
		}
		q.Value = v
	} else if q.Scope != "" && scopePosition(q.Scope) < 0 {
		_, _, fault := canonicalValue(q.Scope, "x")
		faults = append(faults, *fault)
	}
	if q.Address != "" {
		a, err := netip.ParseAddr(q.Address)
		if err != nil || a.Zone() != "" {
			faults = append(faults, FieldError{"address", fmt.Sprintf("%.64q is not an address; write one such as 203.0.113.7", q.Address)})
		}
		q.Address = canonicalAddr(a).String()
	}
	switch q.State {
	case "", "live", "ended":
	default:
		faults = append(faults, FieldError{"state", fmt.Sprintf("%.64q is none; want live or ended", q.State)})
	}
	switch {
	case q.Limit == 0:
		q.Limit = 50
	case q.Limit < 0 || q.Limit > 200:
		faults = append(faults, FieldError{"limit", fmt.Sprintf("%d is not between 1 and 200", q.Limit)})
	}
	for _, f := range []struct{ field, text string }{{"origin", string(q.Origin)}, {"by", q.By}, {"rule", string(q.Rule)}} {
		if len(f.text) > maxName || !plainText(f.text, false) {
			faults = append(faults, FieldError{f.field, fmt.Sprintf("want at most %d bytes of plain text", maxName)})
		}
	}
	if len(q.Cursor) > decisionIDLen || strings.Trim(q.Cursor, idAlphabet) != "" {
		faults = append(faults, FieldError{"cursor", "is not one that a page ended with; begin without one"})
	}
	if len(faults) > 0 {
		return q, faults
	}
	return q, nil
}

// Sweep removes what is over at now and returns what ended without being lifted
// and was not told before, on this node or another. It only cleans and tells: with
// the store away nothing is removed, and nothing that is over acts. Where nothing
// is over, it reads and does not write.
func (d *Decisions) Sweep(ctx context.Context, now time.Time) ([]Decision, error) {
	now = toMicro(now)
	then := now.Add(-keepEnded)
	d.holds.prune(micros(now))
	var told []Decision
	for {
		due, err := d.store.Due(ctx, now, then)
		if err != nil {
			return told, fmt.Errorf("sweeping decisions: %w", err)
		}
		if !due {
			return told, nil
		}
		if err := d.acquire(ctx); err != nil {
			return told, err
		}
		var over []Decision
		revision, err := d.store.Update(ctx, func(tx DecisionTx) error {
			over = nil
			untold, err := tx.Untold(now, maxBatch)
			if err != nil {
				return err
			}
			for _, s := range untold {
				if err := tx.Put(s.Decision, StateExpired); err != nil {
					return err
				}
				if err := d.intend(tx, Expired, s.Decision, now); err != nil {
					return err
				}
				over = append(over, s.Decision)
			}
			purged, err := tx.Purge(then, maxBatch)
			if err == nil && len(over) == 0 && purged == 0 {
				return errNothingToDo // another node was faster
			}
			return err
		})
		if err != nil && !errors.Is(err, errNothingToDo) {
			d.release()
			return told, fmt.Errorf("sweeping decisions: %w", err)
		}
		for i := range over {
			d.live.drop(&over[i], revision)
		}
		d.release()
		told = append(told, over...)
	}
}

// Acted is those of entries, of the record's intents, whose act was committed:
// "node/sequence" as in [Decision.Entry] and [Act]. At most 10,000 at a time.
func (d *Decisions) Acted(ctx context.Context, entries []string) (map[string]bool, error) {
	if len(entries) > maxBatch {
		return nil, fmt.Errorf("looking for acts of %d entries: at most %d at a time; ask in parts", len(entries), maxBatch)
	}
	acted := make(map[string]bool)
	// What cannot be marked is not asked for: PostgreSQL takes no NUL.
	entries = slices.DeleteFunc(slices.Clone(entries), func(e string) bool { return !plainText(e, false) })
	for part := range slices.Chunk(entries, actsBatch) {
		found, err := d.store.Acted(ctx, part)
		if err != nil {
			return nil, fmt.Errorf("looking for acts of %d entries: %w", len(entries), err)
		}
		for _, e := range found {
			acted[e] = true
		}
	}
	return acted, nil
}

// ForgetActs deletes which entries of a node were acted on before then, once the
// node's record holds their outcome.
func (d *Decisions) ForgetActs(ctx context.Context, node string, before time.Time) error {
	if node == "" || len(node) > maxName || strings.Contains(node, "/") || !plainText(node, false) {
		return fmt.Errorf("forgetting acts of node %.64q: that is no name of a node", node)
	}
	for {
		n, err := d.store.ForgetActs(ctx, node+"/", toMicro(before), maxBatch)
		if err != nil {
			return fmt.Errorf("forgetting acts of node %s: %w", node, err)
		}
		if n < maxBatch {
			return nil
		}
	}
}

// Reconcile takes over what other nodes wrote to the store. Run does it regularly;
// a message that something changed is a reason to do it at once.
func (d *Decisions) Reconcile(ctx context.Context, now time.Time) error {
	if err := d.acquire(ctx); err != nil {
		return err
	}
	at := micros(now)
	var news []Decision
	latest, err := d.store.Since(ctx, d.seen, func(s Stored) {
		d.holds.add(&s.Decision)
		if s.State == StateLive {
			if micros(s.Until) > at && d.live.put(&s.Decision, s.Revision, false) {
				news = append(news, s.Decision)
			}
		} else if d.live.drop(&s.Decision, s.Revision) && s.State == StateLifted {
			news = append(news, s.Decision)
		}
	})
	if err == nil {
		d.seen = latest
	}
	d.release()
	d.tell(news)
	if err != nil {
		return fmt.Errorf("reconciling decisions: %w", err)
	}
	return nil
}

// Run reconciles and sweeps until ctx ends, and hands each decision that expired
// to told, at most once among all nodes (a notice is sure; see [WithNotices]). An error of the store costs one round: what acts
// is in memory, and ends on time. It returns the error of ctx.
func (d *Decisions) Run(ctx context.Context, every time.Duration, now func() time.Time, told func(Decision)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		// Both are tried again next time; neither's failure is a reason to skip the other.
		_ = d.Reconcile(ctx, now())
		over, _ := d.Sweep(ctx, now())
		if told != nil {
			for _, o := range over {
				told(o)
			}
		}
	}
}

// Changed subscribes f to decisions that were made, extended or lifted, here or on
// another node. f runs after the change is visible, on the goroutine that made it,
// perhaps concurrently and not always in order: it is a reason to ask Match, not
// an answer.
func (d *Decisions) Changed(f func(Decision)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = append(d.changed, f)
}

func (d *Decisions) tell(news []Decision) {
	if len(news) == 0 {
		return
	}
	d.mu.Lock()
	subscribers := d.changed[:len(d.changed):len(d.changed)]
	d.mu.Unlock()
	for _, n := range news {
		for _, f := range subscribers {
			f(n)
		}
	}
}

// acquire takes the right to write, or gives up with ctx.
func (d *Decisions) acquire(ctx context.Context) error {
	select {
	case <-d.writing:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another change of decisions: %w", ctx.Err())
	}
}

func (d *Decisions) release() { d.writing <- struct{}{} }

const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"

var idEncoding = base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding)

// isID reports whether a decision can have the id.
func isID(id string) bool { return len(id) == decisionIDLen && strings.Trim(id, idAlphabet) == "" }

// newID is unguessable and sorts by time: 48 bits of Unix milliseconds, 80 bits of
// chance.
func newID(now time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:])
	return idEncoding.EncodeToString(b[:])
}

// CursorAt is a cursor after which a list has the decisions that were made before then.
func CursorAt(then time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(then.UnixMilli())<<16)
	return idEncoding.EncodeToString(b[:])
}
