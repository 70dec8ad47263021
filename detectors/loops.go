package detectors

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// LoopsConfig sets up [Loops]. The zero value is a good one, without a learning window.
type LoopsConfig struct {
	LearningUntil time.Time // as for [Sequential]
	Pairs         int       // of a network and a name that failed from it, kept; 0: 131,072
	Sources       int       // networks that a pair was repeated from, kept; 0: 65,536
	Storms        int       // of a network and a kind of credential, kept; 0: 65,536
	Clients       int       // TLS fingerprints, families, and both together, kept; 0: 32,768
}

// Loops sees programs that go wrong without anybody's ill will, and clients that are not
// what they say.
//
// A loop: a program or password manager that tries the same wrong password again and
// again. Of each network and name it counts log-ins that failed, and the different
// passwords among them; at 8 or more, of which at most one in ten is new, a password that
// failed 8 times is a loop's (so the only one is from its tenth time on). Another password for
// the name is no part of it: who types the new one is not held up. The gate's own refusals
// count when the password is one that was wrong before. The limit of one in ten is that
// of Araña (Islam et al., USENIX Security 2023).
//
// A token storm: requests whose credential was refused, outside log-in, as after tokens
// were rotated; counted per network and kind of credential, over 10 minutes. It is said
// of such requests alone, and never of anybody's log-in.
//
// Incoherence: a User-Agent that says one thing and a TLS handshake that says another.
// What is known to be impossible is in Client.Incoherent. The rest is learned from
// completed log-ins: a TLS fingerprint and a family, each seen a hundred times or more,
// and never with each other. Three different accounts that vouch (a day old, or on a
// trusted device) make a pair a usual one, so that nobody makes it usual alone.
//
// It keeps per network and name, in windows of 6 hours of which the last 4 count (18 to
// 24 hours), two counts each and the last 4 wrong passwords as hashes of 32 bits (44
// bytes); per network the same counts, from its first repetition on (36 bytes); per storm 12 bytes; per fingerprint,
// family or pair 16 bytes, for 60 days. With 16 bytes each for being found, all full:
// 8 + 4 + 2 + 1 MiB, and at most 10 bytes each for the indices. Pairs that are no loop,
// sources with few failures, quiet credentials and rare clients go first.
//
// It says [Signal]s client.loop, source.repeated_pairs, client.token_storm and
// client.incoherent; a signal that is not said is 0.
//
// It accepts these false positives: a person who tries one wrong password ten times in a
// day looks like a program, and an attacker who repeats one pair is called a loop: it is
// a reason to leave others alone, and none to let the attempt through. The first three
// people with a new combination of two old clients are incoherent.
type Loops struct {
	config LoopsConfig

	pairs   *table[uint64, loopState]
	sources *table[sourceKey, loopCounts[uint32]]
	storms  *table[uint64, storm]
	clients *table[uint64, clientSeen]
}

const (
	loopWindow    = 6 * time.Hour
	loopWindows   = 4
	loopPasswords = 4
	loopRequests  = 8
	loopRatio     = 0.10 // different pairs per request
	loopForget    = loopWindow * loopWindows

	stormWindow = 10 * time.Minute
	stormSaid   = 20 // requests per 10 min; below is what an expired token costs

	clientForget = 60 * 24 * time.Hour
	clientOften  = 100
	pairAccounts = 3
)

// Salts of what this file keeps in one table.
const (
	loopSalt = iota + 160
	stormSalt
	ja4Salt
	familySalt
	coherentSalt
)

// loopCounts are requests that failed, and the different pairs among them, in the last
// windows.
type loopCounts[N uint16 | uint32] struct {
	window   uint32 // number of the window that [0] is about
	requests [loopWindows]N
	fresh    [loopWindows]N // of them, pairs that were not among the last of their name
}

type loopState struct {
	loopCounts[uint16]
	passwords [loopPasswords]uint32 // hashes, latest first; 0: none
	times     [loopPasswords]uint16 // that each failed, since the last idle day; counts to 65,535
}

// storm counts refused credentials.
type storm struct{ window, now, before uint32 }

// clientSeen counts completed log-ins with a fingerprint, a family, or both.
type clientSeen struct {
	accounts [pairAccounts]uint32 // hashes of the first that vouched; 0: none
	count    uint8                // to 100
}

func (v *clientSeen) often() bool { return v.count >= clientOften }
func (v *clientSeen) usual() bool { return v.accounts[pairAccounts-1] != 0 }

// NewLoops returns a detector that has seen nothing.
func NewLoops(c LoopsConfig) *Loops {
	if c.Pairs <= 0 {
		c.Pairs = 1 << 17
	}
	if c.Sources <= 0 {
		c.Sources = 1 << 16
	}
	if c.Storms <= 0 {
		c.Storms = 1 << 16
	}
	if c.Clients <= 0 {
		c.Clients = 1 << 15
	}
	l := &Loops{
		config: c,
		pairs: newTable[uint64](c.Pairs, loopForget,
			func(v *loopState) bool { return v.times[0] >= loopRequests }, nil),
		sources: newTable[sourceKey](c.Sources, loopForget,
			func(v *loopCounts[uint32]) bool { return v.requests[0] >= loopRequests }, nil),
		storms: newTable[uint64](c.Storms, 2*stormWindow,
			func(v *storm) bool { return v.now+v.before >= stormSaid }, nil),
		clients: newTable[uint64](c.Clients, clientForget,
			func(v *clientSeen) bool { return v.often() || v.usual() }, nil),
	}
	l.pairs.form = form[uint64, loopState]{writeLoop, readLoop}
	l.sources.form = form[sourceKey, loopCounts[uint32]]{writeLoopCounts, readLoopCounts}
	l.storms.form = form[uint64, storm]{writeStorm, readStorm}
	l.clients.form = form[uint64, clientSeen]{writeClientSeen, readClientSeen}
	return l
}

// Signals implements [Detector].
func (l *Loops) Signals() []Description {
	return []Description{
		{Name: "client.loop", Unit: "0 or 1", Max: 1, Meaning: "1 for a wrong password that was tried again and again with the name from the source network: 8 failures or more within a day, one in ten of them a new pair"},
		{Name: "source.repeated_pairs", Unit: "share", Max: 1, Meaning: "failed log-ins from the source network that repeat a pair of name and password, within a day and since the first that did; from 8 failures and 0.5 up; 0.9 and more are programs"},
		{Name: "client.token_storm", Unit: "requests per 10 min", Meaning: "requests from the source network whose credential, of the same kind, was refused outside log-in; from 20 up, and of such requests alone"},
		{Name: "client.incoherent", Unit: "0 or 1", Max: 1, Meaning: "1 where the User-Agent says one thing and TLS or header fields another, as far as is known or learned"},
	}
}

func loopKey(e *Event) uint64 { return mix(uint64(keyOf(e.Source)) ^ mix(loopSalt^nameHash(e))) }
func stormKey(e *Event) uint64 {
	return mix(uint64(keyOf(e.Source)) ^ hash64(stormSalt, e.Credential))
}

func wordHash(e *Event) uint32 { return max(hash32(hashDigest(loopSalt, e.Password.Digest)), 1) }

func windowOf(t time.Time, length time.Duration) uint32 {
	return uint32(t.Unix() / int64(length/time.Second))
}

// ofToken reports whether e is about a credential that is used, and not about a log-in.
func ofToken(e *Event) bool { return e.Kind == Door || e.Kind == Session && e.Act == "" }

// Assess tells what is known before e, or after it when e was observed already.
func (l *Loops) Assess(e Event) []Signal { return l.assess(&e) }

func (l *Loops) assess(e *Event) []Signal {
	var signals []Signal
	if ofToken(e) {
		if v, _ := l.storms.find(stormKey(e), e.Time); v != nil {
			if n := v.rate(e.Time); n >= stormSaid {
				signals = append(signals, Signal{Name: "client.token_storm", Value: n,
					Why: fmt.Sprintf("%.0f requests from %s within 10 min with a credential of the kind %.40q that is not accepted", n, sourceName(e.Source), e.Credential)})
			}
		}
	}
	if e.Kind == Login {
		signals = l.assessLogin(signals, e)
	}
	if why := l.incoherent(e); why != "" {
		signals = append(signals, Signal{Name: "client.incoherent", Value: 1, Why: why})
	}
	return signals
}

func (l *Loops) assessLogin(signals []Signal, e *Event) []Signal {
	window := windowOf(e.Time, loopWindow)
	if !e.Password.Digest.IsZero() && !e.Name.Digest.IsZero() {
		if v, _ := l.pairs.find(loopKey(e), e.Time); v != nil && v.looping(window) {
			if i := v.place(wordHash(e)); i >= 0 && v.times[i] >= loopRequests {
				n, _ := v.sums(window)
				signals = append(signals, Signal{Name: "client.loop", Value: 1,
					Why: fmt.Sprintf("the same wrong password %d times from %s: a program with an old password", min(n, int(v.times[i])), sourceName(e.Source))})
			}
		}
	}
	if v, _ := l.sources.find(keyOf(e.Source), e.Time); v != nil {
		if n, fresh := v.sums(window); n >= loopRequests && 2*fresh <= n {
			signals = append(signals, Signal{Name: "source.repeated_pairs", Value: 1 - float64(fresh)/float64(n),
				Why: fmt.Sprintf("%d of %d failed log-ins from %s within a day repeat a name with the same wrong password", n-fresh, n, sourceName(e.Source))})
		}
	}
	return signals
}

// incoherent says why e's client is not what it says; empty: nothing speaks for that.
func (l *Loops) incoherent(e *Event) string {
	c := &e.Client
	if c.Incoherent {
		return "what this client shows does not go together"
	}
	if c.JA4 == "" || c.Family == "" {
		return ""
	}
	ja4, family := hash64(ja4Salt, c.JA4), hash64(familySalt, c.Family)
	if v, _ := l.clients.find(mix(coherentSalt^ja4^mix(family)), e.Time); v != nil && v.usual() {
		return ""
	}
	for _, k := range [2]uint64{ja4, family} {
		if v, _ := l.clients.find(k, e.Time); v == nil || !v.often() {
			return ""
		}
	}
	return fmt.Sprintf("it says that it is %.40q, and its TLS handshake (%.40s) is that of others", c.Family, c.JA4)
}

// Observe implements [Detector].
func (l *Loops) Observe(e Event) { l.observe(&e) }

func (l *Loops) observe(e *Event) {
	if ofToken(e) && (e.Outcome == Failure || e.Outcome == Refused) {
		v, _ := l.storms.take(stormKey(e), e.Time)
		v.add(windowOf(e.Time, stormWindow))
	}
	if e.Kind == Login && !e.Password.Digest.IsZero() && !e.Name.Digest.IsZero() {
		l.observePair(e)
	}
	if proven(e) && e.Client.JA4 != "" && e.Client.Family != "" && !e.Client.Incoherent {
		l.learn(e)
	}
}

func (l *Loops) observePair(e *Event) {
	if e.Outcome == Unknown {
		return
	}
	k, password := loopKey(e), wordHash(e)
	if e.Outcome != Failure { // it tells something of a password that was wrong before only
		v, _ := l.pairs.find(k, e.Time)
		if v == nil {
			return
		}
		i := v.place(password)
		if i < 0 {
			return
		}
		if e.Outcome == Success {
			v, _ = l.pairs.take(k, e.Time)
			v.drop(i)
			return
		}
	}
	window := windowOf(e.Time, loopWindow)
	v, _ := l.pairs.take(k, e.Time)
	v.turn(window)
	fresh := v.try(password)
	v.count(fresh)
	source := keyOf(e.Source)
	if s, _ := l.sources.find(source, e.Time); s == nil && fresh {
		return // it is like most: a source begins with its first repetition
	}
	s, _ := l.sources.take(source, e.Time)
	s.turn(window)
	s.count(fresh)
}

// place is where password is among the last, or -1.
func (v *loopState) place(password uint32) int {
	return slices.Index(v.passwords[:], password)
}

// try puts password first and reports whether it is new.
func (v *loopState) try(password uint32) (fresh bool) {
	i, times := v.place(password), uint16(0)
	if fresh = i < 0; fresh {
		i = loopPasswords - 1 // the oldest goes
	} else {
		times = v.times[i]
	}
	copy(v.passwords[1:i+1], v.passwords[:i])
	copy(v.times[1:i+1], v.times[:i])
	v.passwords[0], v.times[0] = password, min(times, math.MaxUint16-1)+1
	return fresh
}

// drop forgets password i.
func (v *loopState) drop(i int) {
	copy(v.passwords[i:], v.passwords[i+1:])
	copy(v.times[i:], v.times[i+1:])
	v.passwords[loopPasswords-1], v.times[loopPasswords-1] = 0, 0
}

// looping reports whether what failed lately was nearly always the same. Whoever goes
// on with what was tried before the last day tried one pair at least.
func (v *loopState) looping(window uint32) bool {
	n, fresh := v.sums(window)
	return n >= loopRequests && float64(max(fresh, 1)) <= loopRatio*float64(n)
}

// shift is how far the windows move when now is the current one, up to all of them; an
// event that is late moves nothing.
func shift(window, now uint32) int {
	if now <= window {
		return 0
	}
	return int(min(now-window, loopWindows))
}

func (v *loopCounts[N]) turn(now uint32) {
	by := shift(v.window, now)
	if by == 0 {
		return
	}
	copy(v.requests[by:], v.requests[:loopWindows-by])
	copy(v.fresh[by:], v.fresh[:loopWindows-by])
	clear(v.requests[:by])
	clear(v.fresh[:by])
	v.window = now
}

func (v *loopCounts[N]) count(fresh bool) {
	if v.requests[0]+1 == 0 {
		return // it is full, and the share stays
	}
	v.requests[0]++
	if fresh {
		v.fresh[0]++
	}
}

func (v *loopCounts[N]) sums(now uint32) (requests, fresh int) {
	for i := range loopWindows - shift(v.window, now) {
		requests += int(v.requests[i])
		fresh += int(v.fresh[i])
	}
	return requests, fresh
}

// add counts a request in window; one that is late counts as of now.
func (v *storm) add(window uint32) {
	v.turn(window)
	v.now = min(v.now, 1<<30-1) + 1
}

func (v *storm) turn(window uint32) {
	switch {
	case window <= v.window:
		return
	case window == v.window+1:
		v.before, v.now = v.now, 0
	default:
		v.before, v.now = 0, 0
	}
	v.window = window
}

// rate is about how many there were in the 10 minutes before now: the last window counts
// by the share of it that they reach back to.
func (v storm) rate(now time.Time) float64 {
	v.turn(windowOf(now, stormWindow))
	length := int64(stormWindow / time.Second)
	passed := float64(now.Unix()%length) / float64(length)
	return float64(v.now) + (1-passed)*float64(v.before)
}

// learn takes the client of a completed log-in for a usual one.
func (l *Loops) learn(e *Event) {
	ja4, family := hash64(ja4Salt, e.Client.JA4), hash64(familySalt, e.Client.Family)
	for _, k := range [2]uint64{ja4, family} {
		v, _ := l.clients.take(k, e.Time)
		v.count = min(v.count+1, clientOften)
	}
	if !vouches(e, l.config.LearningUntil) {
		return
	}
	v, _ := l.clients.take(mix(coherentSalt^ja4^mix(family)), e.Time)
	account := max(hash32(accountHash(e)), 1)
	for i, a := range v.accounts {
		if a == account {
			return
		}
		if a == 0 {
			v.accounts[i] = account
			return
		}
	}
}

func (l *Loops) form() string     { return "loops/2" }
func (l *Loops) tables() []pieces { return []pieces{l.pairs, l.sources, l.storms, l.clients} }
func (l *Loops) empty() stored    { return NewLoops(l.config) }

func writeLoop(b []byte, k uint64, v *loopState) []byte {
	b = binary.BigEndian.AppendUint64(b, k)
	b = binary.BigEndian.AppendUint32(b, v.window)
	for i := range loopWindows {
		b = binary.BigEndian.AppendUint16(b, v.requests[i])
		b = binary.BigEndian.AppendUint16(b, v.fresh[i])
	}
	for i, p := range v.passwords {
		b = binary.BigEndian.AppendUint32(b, p)
		b = binary.BigEndian.AppendUint16(b, v.times[i])
	}
	return b
}

func readLoop(c *snapshot.Cursor, k *uint64, v *loopState) {
	*k, v.window = c.Uint64(), c.Uint32()
	for i := range loopWindows {
		v.requests[i], v.fresh[i] = c.Uint16(), c.Uint16()
		if v.fresh[i] > v.requests[i] {
			c.Fail()
		}
	}
	for i := range v.passwords {
		v.passwords[i], v.times[i] = c.Uint32(), c.Uint16()
	}
}

func writeLoopCounts(b []byte, k sourceKey, v *loopCounts[uint32]) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(k))
	b = binary.BigEndian.AppendUint32(b, v.window)
	for i := range loopWindows {
		b = binary.BigEndian.AppendUint32(b, v.requests[i])
		b = binary.BigEndian.AppendUint32(b, v.fresh[i])
	}
	return b
}

func readLoopCounts(c *snapshot.Cursor, k *sourceKey, v *loopCounts[uint32]) {
	*k, v.window = sourceKey(c.Uint64()), c.Uint32()
	for i := range loopWindows {
		v.requests[i], v.fresh[i] = c.Uint32(), c.Uint32()
		if v.fresh[i] > v.requests[i] {
			c.Fail()
		}
	}
}

func writeStorm(b []byte, k uint64, v *storm) []byte {
	b = binary.BigEndian.AppendUint64(b, k)
	for _, n := range [3]uint32{v.window, v.now, v.before} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

func readStorm(c *snapshot.Cursor, k *uint64, v *storm) {
	*k = c.Uint64()
	v.window, v.now, v.before = c.Uint32(), c.Uint32(), c.Uint32()
	if max(v.now, v.before) > 1<<30 {
		c.Fail()
	}
}

func writeClientSeen(b []byte, k uint64, v *clientSeen) []byte {
	b = append(binary.BigEndian.AppendUint64(b, k), v.count)
	for _, a := range v.accounts {
		b = binary.BigEndian.AppendUint32(b, a)
	}
	return b
}

func readClientSeen(c *snapshot.Cursor, k *uint64, v *clientSeen) {
	*k, v.count = c.Uint64(), c.Byte()
	for i := range v.accounts {
		v.accounts[i] = c.Uint32()
	}
	if v.count > clientOften {
		c.Fail()
	}
}
