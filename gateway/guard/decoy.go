package guard

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/kidoban/kidoban/auth"
	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/limits"
	"github.com/kidoban/kidoban/gateway/pages"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// A step-up that is due before the backend is asked is answered in one way, whether
// the password is right or wrong: with a hold. That of a wrong password is a decoy: it
// is nobody's, holds no answer, and nothing approves it. So who tries a list learns of
// no pair whether it is good.
//
//   - The answer, its cookies and the pages are those of a right password: of the kind
//     that the named account would get; for a name that nobody here has, the page for a
//     mailed code. No page tells where a code was mailed to, nor offers a way around the
//     factor; who must enrol a factor first is refused, right or wrong.
//   - The answer comes a set time after the request began, as long as the backend and
//     the stores do not take longer.
//   - Tries at a decoy cost work like others, and are slowed down like others; but what
//     is counted is the pair of name and password: nobody's authenticator.
//   - A right password gives its tries back to the limits when the factor was given, and
//     not before: what is left of them tells nothing.
//   - What rules say of a success after the fact is answered with a decoy too.
//
// What remains: a mail comes or does not, which its owner sees. Rare accounts differ
// from what the directory has of them, such as one that is not known yet and has no mail
// address, or lives in an organization with demands of its own. A backend that keeps a
// visitor's cookie at login lets the holder of that cookie see what became of it. Several
// nodes slow down tries at a decoy each by itself. That somebody guessed at an
// authenticator, or guessed until it was disabled, shows to who has the right password.

// steppedUp bounds the log-ins that are answered in one way: each is a place among
// the holds, of which there are 100,000. More are refused, before the backend is asked.
var steppedUp = limits.Bucket{Name: "stepped_up", Burst: 20_000, Every: 10 * time.Millisecond}

// crowded refuses a login that is to be stepped up when too many are.
func (v *visit) crowded() *refusal {
	g := v.guard
	_, d := g.Attempts.Take(context.WithoutCancel(v.r.Context()), v.now, []limits.AttemptCharge{{Bucket: &steppedUp, Key: g.Digest("stepped up", ""), N: 1}})
	if d.Allowed {
		return nil
	}
	return v.refuse(ControlAttempts, policies.Verdict{Action: rules.Refuse, Reason: policies.ReasonLimit, Until: v.now.Add(d.RetryAfter)})
}

// settle waits until the answer is due to a login that must not show by its time what
// was done about it.
func (v *visit) settle() { v.wait(v.guard.answerAfter - time.Since(v.login.began)) }

// unproved refuses a stepped-up login whose account can be asked for nothing.
func (v *visit) unproved() *refusal {
	return v.refuse(countedLogin, policies.Verdict{Action: rules.StepUp, Reason: policies.ReasonFactorDue})
}

// decoy answers a stepped-up login whose password was wrong as if it had been right.
func (v *visit) decoy() *refusal {
	g, l := v.guard, v.login
	ctx := context.WithoutCancel(v.r.Context())
	trouble := func(doing string, err error) *refusal {
		g.complain(doing, "error", err)
		return v.refuse(ControlSessions, unavailable)
	}
	account := ""
	for _, n := range l.names {
		if account == "" {
			account = n.account
		}
	}
	var person auth.Person
	if account != "" {
		var err error
		if person, _, err = g.Directory.BySubject(ctx, account); err != nil {
			return trouble("directory", err)
		}
	}
	id := policies.Identity{Subject: account, Organization: person.Organization, Roles: person.Roles, Mail: person.Mail}
	due, err := v.due(completion{identity: id}, detectors.Event{Device: l.device}, person, true)
	if err != nil {
		return trouble("second factors", err)
	}
	if due.Need == policies.NeedEnrol || due.Need == policies.NeedConfirm && !g.Mailing.Load() || account != "" && !v.reachable(due, id) {
		return v.unproved()
	}
	// It is of the pair: what becomes of one tells nothing of another.
	pair := v.attemptDigest()
	if pair == ([16]byte{}) {
		rand.Read(pair[:])
	}
	of := g.Digest("nobody", string(pair[:]))
	subject := auth.Nobody + hex.EncodeToString(of[:])
	if refusal := v.tooManyHeld(subject, l.device); refusal != nil {
		return refusal
	}
	sealed, err := json.Marshal(heldAnswer{Kind: detectors.Login, SteppedUp: true, Decoy: true, For: account})
	if err != nil {
		return trouble("holding a login", err)
	}
	h := v.newHold(subject, due.Need)
	h.Device = l.device.ID
	h, token, err := v.beginHold(ctx, h, sealed)
	if err != nil {
		return trouble("holding a login", err)
	}
	return v.begun(h, token, l.device)
}

// tryDecoy tries what was typed, or what a key answered, on a decoy: at the cost of
// a wrong one elsewhere.
func (g *Guard) tryDecoy(v *visit, by approver) error {
	h := by.hold
	if h.Need == auth.NeedConfirm {
		h.Subject = few(h.Subject)
		return g.confirm(v, h, nil)
	}
	if g.slow.wait(h.Subject, v.now) > 0 {
		return auth.ErrWrongCode
	}
	_, err := g.give(v, h.Subject, nil, purposeOf(h), map[string]string{"hold": h.ID})
	form := v.r.PostForm
	if errors.Is(err, auth.ErrWrongCode) && !errors.Is(err, auth.ErrMalformedCode) && form.Get(pages.FieldKey) == "" && form.Get(pages.FieldRecovery) == "" {
		g.slow.failed(h.Subject, v.now)
	}
	if err == nil {
		err = auth.ErrWrongCode
	}
	return err
}

// few is one of 256 subjects for a decoy's: for what is kept of each for good.
func few(subject string) string { return subject[:len(auth.Nobody)+2] }

// beginDecoyKey sends what the account's own page would: the same keys, and a challenge
// that nothing answers.
func (g *Guard) beginDecoyKey(w http.ResponseWriter, v *visit, by approver) error {
	account := by.account
	if account == "" {
		account = few(by.hold.Subject)
	}
	options, err := g.slow.keys(account, v.now, func() ([]byte, error) {
		return g.Factors.BeginKey(v.r.Context(), account, purposeOf(by.hold), v.now)
	})
	if err != nil {
		return v.troubled(w, "second factors", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, err = w.Write(options)
	return err
}

const (
	slowMax  = 1 << 14          // pairs whose tries are slowed down, and accounts whose keys are known
	slowFrom = 5                // as of authenticators: see auth.Factors
	slowBy   = 30 * time.Second // after the first of them, doubled by each further one
	slowMost = time.Hour
	keysFor  = time.Minute
)

// slow is what a node keeps of tries at decoys. When it is full, anything of it goes.
type slow struct {
	mu    sync.Mutex
	tries map[string]slowTries
	known map[string]knownKeys
}

type slowTries struct {
	failures int
	next     time.Time
}

// knownKeys are the options of an account, asked for once in a while: each asking
// takes one of the few challenges that an account may have open.
type knownKeys struct {
	options []byte
	until   time.Time
}

func (s *slow) wait(subject string, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.tries[subject].next.Sub(now), 0)
}

func (s *slow) failed(subject string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tries == nil {
		s.tries = make(map[string]slowTries)
	}
	t := s.tries[subject]
	t.failures++
	if over := t.failures - slowFrom; over >= 0 {
		t.next = now.Add(min(slowBy<<min(over, 16), slowMost))
	}
	room(s.tries, subject)
	s.tries[subject] = t
}

// keys are the options for an account's keys with a challenge of their own.
func (s *slow) keys(account string, now time.Time, begin func() ([]byte, error)) ([]byte, error) {
	s.mu.Lock()
	k, ok := s.known[account]
	s.mu.Unlock()
	if !ok || !now.Before(k.until) {
		options, err := begin()
		if err != nil {
			return nil, err
		}
		k = knownKeys{options, now.Add(keysFor)}
		s.mu.Lock()
		if s.known == nil {
			s.known = make(map[string]knownKeys)
		}
		room(s.known, account)
		s.known[account] = k
		s.mu.Unlock()
	}
	return challenged(k.options)
}

// room makes room in m for a key.
func room[V any](m map[string]V, key string) {
	if _, ok := m[key]; ok || len(m) < slowMax {
		return
	}
	for other := range m {
		delete(m, other)
		return
	}
}

// challenged is the options for keys with a new challenge.
func challenged(options []byte) ([]byte, error) {
	var all struct {
		PublicKey struct{ Challenge string }
	}
	if err := json.Unmarshal(options, &all); err != nil {
		return nil, err
	}
	old := all.PublicKey.Challenge
	fresh := make([]byte, base64.RawURLEncoding.DecodedLen(len(old)))
	rand.Read(fresh)
	// In place, so that the rest stays as it was written.
	return bytes.Replace(options, []byte(old), []byte(base64.RawURLEncoding.EncodeToString(fresh)), 1), nil
}

// tickets are what log-ins that are held took from the limits. When there are too many,
// the oldest goes, and its login is charged for good.
type tickets struct {
	mu    sync.Mutex
	kept  map[string]limits.Ticket
	order []string
}

const ticketsMax = 1 << 14

func (t *tickets) keep(hold string, ticket limits.Ticket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kept == nil {
		t.kept = make(map[string]limits.Ticket)
	}
	if len(t.order) == ticketsMax {
		delete(t.kept, t.order[0])
		t.order = t.order[1:]
	}
	t.kept[hold], t.order = ticket, append(t.order, hold)
}

func (t *tickets) take(hold string) limits.Ticket {
	t.mu.Lock()
	defer t.mu.Unlock()
	ticket := t.kept[hold]
	delete(t.kept, hold)
	return ticket
}
