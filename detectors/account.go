package detectors

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// AccountsConfig sets up [Accounts]. The zero value is a good one.
type AccountsConfig struct {
	Accounts int // kept; 0: 1,048,576
}

// Accounts tells the guessing of one account's password, from wherever it comes.
//
// It sees failed attempts that a backend evaluated, from devices that the account does
// not know. Each different wrong password is a guess, told apart by its digest; an
// attempt without a digest is one unless it is a repeat. A guess is a point, and two if the password is
// popular, since such guesses are those that succeed (after DALock: Blocki and Zhang,
// "Distribution Aware Password Throttling", 2020). It counts for 24 h from its first
// time. When somebody completes a login without a known device, the guesses from the
// same network are taken back, for these were its own mistakes; those from elsewhere stay.
//
// It keeps per account the last 64 guesses: hashes of 32 bits of the password and of the
// network, 15 of the client program, and the minute. About 110 bytes an account for up
// to 4 of them, 250 for 16 and 830 for 64; those beyond 4 come from a budget of
// 4,194,304 for all accounts, and without it the oldest guess makes room. At most
// Accounts accounts are kept; when full, one of a sample that is idle or has fewer than
// 3 guesses goes first. An account that nobody guessed at for 24 h starts again from 0.
// Where the account is not known, the typed name stands for it; a completed login
// speaks for both, and its account takes over what was guessed at the name.
//
// It says [Signal]s account.guesses and account.guessers, and nothing of an attempt
// from a known device: its owner does not pay for what strangers do, and they lock
// nobody out.
//
// It accepts this false positive: somebody who forgot the password and tries many, on a
// new device, is one who guesses.
type Accounts struct {
	config   AccountsConfig
	accounts *table[uint64, guesses]
	budget   int // guesses beyond the first four that may still be allocated
}

// guesses are those at one account, oldest first.
type guesses []guess

type guess struct {
	password uint32 // 0: not known
	network  uint32
	program  uint16 // its lowest bit: the password was popular
	minute   uint16 // wraps after 45 days
}

const (
	guessWindow  = 24 * time.Hour
	fewGuesses   = 4
	mostGuesses  = 64
	allGuesses   = 4 << 20
	popularGuess = 2 // points
	mostGuessers = 16
	guessesTold  = 3
)

// NewAccounts returns a detector that has seen nothing.
func NewAccounts(c AccountsConfig) *Accounts {
	if c.Accounts <= 0 {
		c.Accounts = 1 << 20
	}
	d := &Accounts{config: c, budget: allGuesses}
	d.accounts = newTable[uint64](c.Accounts, guessWindow,
		func(v *guesses) bool { return len(*v) >= guessesTold },
		func(v *guesses) { d.budget += costOf(cap(*v)) })
	d.accounts.form = form[uint64, guesses]{writeGuesses, d.readGuesses}
	return d
}

// costOf is what room for n guesses takes of the budget.
func costOf(n int) int {
	if n <= fewGuesses {
		return 0
	}
	return n
}

// Signals implements [Detector].
func (d *Accounts) Signals() []Description {
	return []Description{
		{Name: "account.guesses", Unit: "points", Max: popularGuess * mostGuesses,
			Meaning: "different wrong passwords tried for the account in 24 h from devices it does not know, popular ones twice; 0 for an attempt from a device it knows"},
		{Name: "account.guessers", Unit: "networks", Max: mostGuessers,
			Meaning: "source networks that these guesses came from; counts to 16"},
	}
}

// Assess tells the standing of e's account before e, or after it when e was observed
// already.
func (d *Accounts) Assess(e Event) []Signal { return d.assess(&e) }

func (d *Accounts) assess(e *Event) []Signal {
	if e.Device.Known() || !named(e) {
		return nil
	}
	v, _ := d.accounts.find(accountHash(e), e.Time)
	if v == nil {
		return nil
	}
	var networks, programs few
	points, n := 0, 0
	for _, g := range *v {
		if g.gone(minute16(e.Time)) {
			continue
		}
		n++
		points += g.points()
		networks.add(g.network)
		programs.add(uint32(g.program >> 1))
	}
	if n == 0 {
		return nil
	}
	signals := make([]Signal, 2)
	signals[0] = Signal{Name: "account.guesses", Value: float64(points)}
	signals[1] = Signal{Name: "account.guessers", Value: float64(networks.n)}
	if n >= guessesTold {
		signals[0].Why = fmt.Sprintf("%d wrong guesses at this account in 24 h without a known device, from %s with %s",
			n, networks.words("network"), programs.words("client program"))
	}
	if networks.n >= guessesTold {
		signals[1].Why = signals[0].Why
	}
	return signals
}

// Observe implements [Detector].
func (d *Accounts) Observe(e Event) { d.observe(&e) }

func (d *Accounts) observe(e *Event) {
	if !counted(e) || e.Device.Known() || !named(e) {
		return
	}
	if e.Outcome == Success {
		if proven(e) {
			d.takeBack(e, accountHash(e))
			if e.Account != "" && !e.Name.Digest.IsZero() {
				d.takeBack(e, unnamedHash(e))
				d.attribute(e)
			}
		}
		return
	}
	if e.Password.Repeat {
		return
	}
	g := guess{network: hash32(uint64(keyOf(e.Source))), minute: minute16(e.Time)}
	if !e.Password.Digest.IsZero() {
		g.password = max(hash32(passwordHash(e)), 1)
	}
	if e.Fingerprint != "" {
		g.program = uint16(hash32(hash64(clientSalt, e.Fingerprint))) &^ 1
	}
	if e.Password.Popularity >= popularHeight {
		g.program |= 1
	}
	v, _ := d.accounts.take(accountHash(e), e.Time)
	v.prune(g.minute)
	for _, old := range *v {
		if g.password != 0 && old.password == g.password {
			return
		}
	}
	d.put(v, g)
}

// put adds g, in place of the oldest when there is no room.
func (d *Accounts) put(v *guesses, g guess) {
	if n := len(*v); n == cap(*v) && !d.grow(v) {
		copy(*v, (*v)[1:])
		*v = (*v)[:n-1]
	}
	*v = append(*v, g)
}

// grow reports whether there was room for more.
func (d *Accounts) grow(v *guesses) bool {
	size := max(fewGuesses, 4*cap(*v))
	more := costOf(size) - costOf(cap(*v))
	if size > mostGuesses || more > d.budget {
		return false
	}
	d.budget -= more
	*v = append(make(guesses, 0, size), *v...)
	return true
}

// takeBack forgets what e's network did to an account.
func (d *Accounts) takeBack(e *Event, account uint64) {
	if v, _ := d.accounts.find(account, e.Time); v == nil {
		return // no reason to remember the account
	}
	v, _ := d.accounts.take(account, e.Time)
	network, kept := hash32(uint64(keyOf(e.Source))), (*v)[:0]
	for _, g := range *v {
		if g.network != network && !g.gone(minute16(e.Time)) {
			kept = append(kept, g)
		}
	}
	*v = kept
}

// attribute gives the guesses at e's name to its account, which is known now.
func (d *Accounts) attribute(e *Event) {
	v, _ := d.accounts.find(unnamedHash(e), e.Time)
	if v == nil || len(*v) == 0 {
		return
	}
	v, _ = d.accounts.take(unnamedHash(e), e.Time) // it is about to change
	early := *v
	*v = nil
	d.budget += costOf(cap(early))
	v, _ = d.accounts.take(accountHash(e), e.Time)
	late := *v
	*v = nil
	d.budget += costOf(cap(late))
	now := minute16(e.Time)
	all := append(slices.Clone(early), late...)
	slices.SortStableFunc(all, func(a, b guess) int { return cmp.Compare(now-b.minute, now-a.minute) })
	for i, g := range all {
		known := g.password != 0 && slices.ContainsFunc(all[:i], func(old guess) bool { return old.password == g.password })
		if !known && !g.gone(now) {
			d.put(v, g)
		}
	}
}

// prune forgets what is older than 24 h.
func (v *guesses) prune(minute uint16) {
	kept := (*v)[:0]
	for _, g := range *v {
		if !g.gone(minute) {
			kept = append(kept, g)
		}
	}
	*v = kept
}

func minute16(t time.Time) uint16 { return uint16(t.Unix() / 60) }

// gone reports whether g is no more in the 24 h before minute. An event that is late
// finds g younger than new.
func (g guess) gone(minute uint16) bool {
	return int16(minute-g.minute) >= int16(guessWindow/time.Minute)
}

func (g guess) points() int {
	if g.program&1 == 1 {
		return popularGuess
	}
	return 1
}

// few is a set of up to 16 different values.
type few struct {
	values [mostGuessers]uint32
	n      int
}

func (f *few) add(x uint32) {
	if f.n == len(f.values) {
		return
	}
	for _, y := range f.values[:f.n] {
		if x == y {
			return
		}
	}
	f.values[f.n] = x
	f.n++
}

func (f *few) words(of string) string {
	switch f.n {
	case 1:
		return "1 " + of
	case len(f.values):
		return fmt.Sprintf("%d or more %ss", f.n, of)
	}
	return fmt.Sprintf("%d %ss", f.n, of)
}

func (d *Accounts) form() string     { return "accounts/2" }
func (d *Accounts) tables() []pieces { return []pieces{d.accounts} }
func (d *Accounts) empty() stored    { return NewAccounts(d.config) }

func writeGuesses(b []byte, k uint64, v *guesses) []byte {
	b = append(binary.BigEndian.AppendUint64(b, k), byte(cap(*v)), byte(len(*v)))
	for _, g := range *v {
		b = binary.BigEndian.AppendUint32(b, g.password)
		b = binary.BigEndian.AppendUint32(b, g.network)
		b = binary.BigEndian.AppendUint16(b, g.program)
		b = binary.BigEndian.AppendUint16(b, g.minute)
	}
	return b
}

func (d *Accounts) readGuesses(c *snapshot.Cursor, k *uint64, v *guesses) {
	*k = c.Uint64()
	size, n := int(c.Byte()), int(c.Byte())
	if size != 0 && size != fewGuesses && size != 4*fewGuesses && size != mostGuesses || n > size || costOf(size) > d.budget {
		c.Fail()
		return
	}
	d.budget -= costOf(size)
	if size > 0 {
		*v = make(guesses, 0, size)
	}
	for range n {
		*v = append(*v, guess{c.Uint32(), c.Uint32(), c.Uint16(), c.Uint16()})
	}
}
