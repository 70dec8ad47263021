package detectors

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// PasswordsConfig sets up [Passwords]. The zero value is a good one.
type PasswordsConfig struct {
	Pairs   int // of a name and a wrong password, kept; 0: 1,048,576
	Names   int // whose latest failures are kept for telling typos; 0: 32,768
	Digests int // of wrong passwords whose names are kept; 0: 262,144
}

// Passwords tells popular passwords, repeated ones and typos, by keyed digests.
//
// It sees failed attempts that a backend evaluated and that carry a digest of their
// password. How popular a password is stands on a binomial ladder (Tian, Herley,
// Schechter, "StopGuessing", EuroS&P 2019): of 8,388,608 bits, half are set; 48 of them,
// chosen by the digest, are the password's rungs, and its height is how many of these
// are set. A failure with a new pair of name and password sets one of its rungs and
// clears a bit anywhere. A password that never failed stands at 24, and at 44, where it
// is popular, with a probability of 7.6 in 10,000,000,000; one that is sprayed gets
// there with 20 guesses or a few more, however many addresses they come from. Three in five of
// its steps are forgotten with 2,097,152 failures of others. Which bits change depends on the event
// alone, its key first, so that each node and each replay do the same. Repeats,
// successes and attempts from a known device only read.
//
// It keeps the ladder (1 MiB), and in tables of a fixed size, where those that were
// seen longest ago go first:
//   - pairs of a name and a wrong password, as hashes: for 12 h, and one that was tried
//     again, as a forgotten client does, for 7 d from the latest time; about 45 bytes each;
//   - of each name what its last 4 failures are near to, for telling a typo when the right
//     password comes within 10 minutes; about 200 bytes, 700 at most. What is older is
//     not looked at, and overwritten by what comes later;
//   - which names failed with a password in 24 h: exactly, the last 16; about 70 bytes,
//     200 with sixteen.
//
// As an [Informer] it fills the Popularity, Repeat and Typo of the password from its
// digests; where there are none it leaves what the event carries. It says [Signal]s
// password.popular and password.spread.
//
// It accepts this false positive: a company gives out one password for the first day and
// its people mistype their names, or come before their accounts are there. That password
// is popular, and spread, for as long as nobody else fails.
type Passwords struct {
	config PasswordsConfig
	ladder ladder
	rungs  *blob
	pairs  *table[uint64, pairState]
	recent *table[uint64, recentWrong]
	spread *table[uint64, spreadNames]

	latest uint64 // whose height is known; Facts asks twice for each attempt
	height int    // of it; -1: the ladder changed since
}

// pairState is what became of a name with a password.
type pairState uint8

const (
	pairNew      pairState = iota
	pairWrong              // once
	pairRepeated           // more often
	pairRight              // in the end
)

// recentWrong are the last failures of a name.
type recentWrong struct {
	at   [typoFailures]int64 // Unix seconds; 0: none
	near [typoFailures][]uint32
}

// spreadNames are names that failed with one password, as entries of [memory].
type spreadNames struct {
	first uint64
	more  []uint64
}

const (
	pairKept     = 12 * time.Hour
	pairKeptLoop = 7 * 24 * time.Hour
	defaultPairs = 1 << 20

	typoWindow   = 10 * time.Minute
	typoFailures = 4
	typoNear     = 33 // elements
	defaultTypos = 1 << 15

	spreadWindow   = 24 * time.Hour
	spreadMost     = 16
	spreadTold     = 3
	defaultDigests = 1 << 18

	passwordSalt = 128
)

// NewPasswords returns a detector that has seen nothing.
func NewPasswords(c PasswordsConfig) *Passwords {
	if c.Pairs <= 0 {
		c.Pairs = defaultPairs
	}
	if c.Names <= 0 {
		c.Names = defaultTypos
	}
	if c.Digests <= 0 {
		c.Digests = defaultDigests
	}
	p := &Passwords{
		config: c,
		height: -1,
		ladder: newLadder(),
		pairs: newTable[uint64](c.Pairs, pairKeptLoop,
			func(v *pairState) bool { return *v == pairRepeated }, nil),
		recent: newTable[uint64](c.Names, typoWindow,
			func(*recentWrong) bool { return false }, nil),
		spread: newTable[uint64](c.Digests, spreadWindow,
			func(v *spreadNames) bool { return len(v.more) >= spreadTold }, nil),
	}
	p.rungs = &blob{most: ladderBits / 8, write: p.ladder.append, read: p.ladder.read}
	p.pairs.form = form[uint64, pairState]{writePair, readPair}
	p.recent.form = form[uint64, recentWrong]{writeRecent, readRecent}
	p.spread.form = form[uint64, spreadNames]{writeSpread, readSpread}
	return p
}

// Signals implements [Detector].
func (p *Passwords) Signals() []Description {
	return []Description{
		{Name: "password.popular", Unit: "0 or 1", Max: 1,
			Meaning: "1 if many attempts failed with the password lately: a height of 44 or more on the ladder of popular failed passwords"},
		{Name: "password.spread", Unit: "names", Max: spreadMost,
			Meaning: "other names that failed with this very password in 24 h, from devices unknown to them; counts to 16"},
	}
}

// Inform implements [Informer].
func (p *Passwords) Inform(e *Event) {
	if !e.Password.Digest.IsZero() {
		if h := passwordHash(e); h != p.latest || p.height < 0 {
			p.latest, p.height = h, p.ladder.height(h)
		}
		e.Password.Popularity = p.height
		e.Password.Repeat = e.Outcome != Success && p.repeats(e)
	}
	if e.Outcome == Success && len(e.Password.Near) > 0 && !e.Password.Typo {
		e.Password.Typo = p.mistyped(e)
	}
}

// Assess implements [Detector]. It believes the popularity that e carries.
func (p *Passwords) Assess(e Event) []Signal { return p.assess(&e) }

func (p *Passwords) assess(e *Event) []Signal {
	popular := e.Password.Popularity >= popularHeight
	others := 0
	if !e.Password.Digest.IsZero() {
		if v, _ := p.spread.find(passwordHash(e), e.Time); v != nil {
			others = v.others(nameHash(e), minuteOf(e.Time))
		}
	}
	if !popular && others == 0 {
		return nil
	}
	signals := make([]Signal, 0, 2)
	if popular {
		signals = append(signals, Signal{Name: "password.popular", Value: 1,
			Why: fmt.Sprintf("many attempts failed with this very password lately (%d of %d rungs)", e.Password.Popularity, ladderRungs)})
	}
	if others > 0 {
		s := Signal{Name: "password.spread", Value: float64(others)}
		if others >= spreadTold {
			atLeast := ""
			if others >= spreadMost-1 {
				atLeast = "at least "
			}
			s.Why = fmt.Sprintf("%s%d other names failed with this very password in 24 h", atLeast, others)
		}
		signals = append(signals, s)
	}
	return signals
}

// Observe implements [Detector].
func (p *Passwords) Observe(e Event) { p.observe(&e) }

func (p *Passwords) observe(e *Event) {
	if !counted(e) {
		return
	}
	if e.Outcome == Success {
		p.right(e)
		return
	}
	if named(e) && len(e.Password.Near) > 0 {
		v, _ := p.recent.take(nameHash(e), e.Time)
		v.keep(e.Password.Near[:min(len(e.Password.Near), typoNear)], e.Time)
	}
	if e.Password.Digest.IsZero() {
		return
	}
	repeat := false // by what is known now, and not what e says: events of the same time cannot know
	if named(e) {
		v, idle := p.pairs.take(pairHash(e), e.Time)
		repeat = v.repeats(idle)
		*v = pairWrong
		if repeat {
			*v = pairRepeated
		}
	}
	if e.Device.Known() {
		return
	}
	if named(e) {
		v, _ := p.spread.take(passwordHash(e), e.Time)
		v.see(nameHash(e), minuteOf(e.Time))
	}
	if !repeat {
		p.ladder.step(passwordHash(e), eventChance(e))
		p.height = -1
	}
}

// right learns that a pair is not wrong, or not any more.
func (p *Passwords) right(e *Event) {
	if e.Password.Digest.IsZero() || !named(e) {
		return
	}
	if v, _ := p.pairs.find(pairHash(e), e.Time); v != nil {
		v, _ = p.pairs.take(pairHash(e), e.Time)
		*v = pairRight
	}
}

// repeats reports whether e's pair of name and password was wrong before.
func (p *Passwords) repeats(e *Event) bool {
	if !named(e) {
		return false
	}
	v, idle := p.pairs.find(pairHash(e), e.Time)
	return v != nil && v.repeats(idle)
}

func (v pairState) repeats(idle time.Duration) bool {
	return v == pairRepeated || v == pairWrong && idle < pairKept
}

// mistyped reports whether e's name failed lately with what is near to e's password.
func (p *Passwords) mistyped(e *Event) bool {
	if !named(e) {
		return false
	}
	v, _ := p.recent.find(nameHash(e), e.Time)
	if v == nil {
		return false
	}
	since := e.Time.Add(-typoWindow).Unix()
	for i, near := range v.near {
		if v.at[i] <= since {
			continue
		}
		for _, n := range near {
			if slices.Contains(e.Password.Near[:min(len(e.Password.Near), typoNear)], n) {
				return true
			}
		}
	}
	return false
}

// named reports whether it is known whom e is about.
func named(e *Event) bool { return !e.Name.Digest.IsZero() || e.Account != "" }

func passwordHash(e *Event) uint64 { return hashDigest(passwordSalt, e.Password.Digest) }

func pairHash(e *Event) uint64 { return mix(nameHash(e) ^ bits.RotateLeft64(passwordHash(e), 32)) }

// keep notes a failure in place of the same one, or of the oldest.
func (v *recentWrong) keep(near []uint32, now time.Time) {
	at, i := max(now.Unix(), 1), 0
	for j := range v.at {
		if v.at[j] != 0 && slices.Equal(v.near[j], near) {
			i, at = j, max(at, v.at[j])
			break
		}
		if v.at[j] < v.at[i] {
			i = j
		}
	}
	v.at[i], v.near[i] = at, append(v.near[i][:0], near...)
}

func spreadGone(entry uint64, minute uint32) bool {
	return entry == 0 || age(entry, minute) >= uint32(spreadWindow/time.Minute)
}

// see notes a name in place of itself, of one that is forgotten, or of the oldest.
func (v *spreadNames) see(name uint64, minute uint32) {
	fresh := entry(name, minute)
	place := &v.first
	free := spreadGone(v.first, minute)
	if v.first != 0 && v.first>>24 == name>>24 {
		v.first = later(v.first, fresh, minute)
		return
	}
	for i := range v.more {
		switch m := &v.more[i]; {
		case *m>>24 == name>>24:
			*m = later(*m, fresh, minute)
			return
		case free:
		case spreadGone(*m, minute):
			place, free = m, true
		case age(*m, minute) > age(*place, minute):
			place = m
		}
	}
	if !free && len(v.more) < spreadMost-1 {
		v.more = append(v.more, fresh)
		return
	}
	*place = fresh
}

// later is the entry of two that was seen later; fresh was seen at minute.
func later(old, fresh uint64, minute uint32) uint64 {
	if age(old, minute) == 0 {
		return old // as late, or the event is
	}
	return fresh
}

// others counts the names of the last 24 h but the given one.
func (v *spreadNames) others(name uint64, minute uint32) (n int) {
	if !spreadGone(v.first, minute) && v.first>>24 != name>>24 {
		n++
	}
	for _, m := range v.more {
		if !spreadGone(m, minute) && m>>24 != name>>24 {
			n++
		}
	}
	return n
}

// ladder is a binomial ladder filter. Half of its bits are set, always.
type ladder []uint64

const (
	ladderBits  = 1 << 23
	ladderRungs = 48
	ladderSeed  = 0x6b69646f62616e // any will do, if it is the same everywhere
	ladderTries = 128              // for a bit that half of all are
)

func newLadder() ladder {
	l := make(ladder, ladderBits/64)
	for i := 0; i < len(l); i += 2 {
		l[i] = mix(ladderSeed + uint64(i))
		l[i+1] = ^l[i]
	}
	return l
}

func (l ladder) get(i uint32) bool { return l[i/64]>>(i%64)&1 == 1 }
func (l ladder) flip(i uint32)     { l[i/64] ^= 1 << (i % 64) }

// rungs are the bits of key, some of which may be the same one.
func (l ladder) rungs(key uint64) (at [ladderRungs]uint32) {
	for i := 0; i < ladderRungs; i += 2 {
		h := mix(key + uint64(i)*0x9e3779b97f4a7c15)
		at[i], at[i+1] = uint32(h)%ladderBits, uint32(h>>32)%ladderBits
	}
	return at
}

func (l ladder) height(key uint64) (n int) {
	for _, i := range l.rungs(key) {
		n += int(l[i/64] >> (i % 64) & 1)
	}
	return n
}

// step raises key by a rung, if it has one left, and lets all others sink a little.
func (l ladder) step(key uint64, c chance) {
	var unset [ladderRungs]uint32
	n := 0
	for _, i := range l.rungs(key) {
		if !l.get(i) {
			unset[n] = i
			n++
		}
	}
	var up uint32
	ok := n > 0
	if ok {
		up = unset[c.next()%uint64(n)]
	} else {
		up, ok = l.any(false, &c)
	}
	down, found := l.any(true, &c)
	if ok && found {
		l.flip(up)
		l.flip(down)
	}
}

// any is a bit that is set, or one that is not.
func (l ladder) any(set bool, c *chance) (uint32, bool) {
	for range ladderTries {
		if i := uint32(c.next()) % ladderBits; l.get(i) == set {
			return i, true
		}
	}
	return 0, false
}

func (l ladder) append(b []byte) []byte {
	b = slices.Grow(b, len(l)*8)
	for _, w := range l {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	return b
}

func (l ladder) read(c *snapshot.Cursor) {
	set := 0
	for i := range l {
		l[i] = c.Uint64()
		set += bits.OnesCount64(l[i])
	}
	if set != ladderBits/2 {
		c.Fail()
	}
}

// chance is splitmix64: what an event leaves to chance is the same wherever it is seen.
type chance uint64

func eventChance(e *Event) chance {
	h := hash64(e.Key.Incarnation, e.Key.Node)
	h = mix(h ^ mix(e.Key.Sequence+passwordSalt))
	return chance(h ^ mix(uint64(e.Time.UnixNano())) ^ passwordHash(e)) // events of a log have no key
}

func (c *chance) next() uint64 {
	*c += 0x9e3779b97f4a7c15
	return mix(uint64(*c))
}

func (p *Passwords) form() string { return "passwords/2" }
func (p *Passwords) tables() []pieces {
	return []pieces{p.rungs, p.pairs, p.recent, p.spread}
}
func (p *Passwords) empty() stored { return NewPasswords(p.config) }

func writePair(b []byte, k uint64, v *pairState) []byte {
	return append(binary.BigEndian.AppendUint64(b, k), byte(*v))
}

func readPair(c *snapshot.Cursor, k *uint64, v *pairState) {
	*k, *v = c.Uint64(), pairState(c.Byte())
	if *v == pairNew || *v > pairRight {
		c.Fail()
	}
}

func writeRecent(b []byte, k uint64, v *recentWrong) []byte {
	b = binary.BigEndian.AppendUint64(b, k)
	for i, near := range v.near {
		b = binary.BigEndian.AppendUint64(b, uint64(v.at[i]))
		b = append(b, byte(len(near)))
		for _, n := range near {
			b = binary.BigEndian.AppendUint32(b, n)
		}
	}
	return b
}

func readRecent(c *snapshot.Cursor, k *uint64, v *recentWrong) {
	*k = c.Uint64()
	for i := range v.near {
		v.at[i] = int64(c.Uint64())
		n := int(c.Byte())
		if v.at[i] < 0 || n > typoNear || v.at[i] == 0 && n > 0 {
			c.Fail()
			return
		}
		for range n {
			v.near[i] = append(v.near[i], c.Uint32())
		}
	}
}

func writeSpread(b []byte, k uint64, v *spreadNames) []byte {
	b = binary.BigEndian.AppendUint64(b, k)
	b = binary.BigEndian.AppendUint64(b, v.first)
	b = append(b, byte(len(v.more)))
	for _, m := range v.more {
		b = binary.BigEndian.AppendUint64(b, m)
	}
	return b
}

func readSpread(c *snapshot.Cursor, k *uint64, v *spreadNames) {
	*k, v.first = c.Uint64(), c.Uint64()
	n := int(c.Byte())
	if n >= spreadMost || v.first == 0 {
		c.Fail()
		return
	}
	for range n {
		v.more = append(v.more, c.Uint64())
	}
}
