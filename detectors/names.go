package detectors

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// NamesConfig sets up [Names]. The zero value is a good one, without a learning
// window and without decoys.
type NamesConfig struct {
	LearningUntil time.Time         // as for [Sequential]: before it a name that the gate does not know is nothing special
	Decoys        func(Digest) bool // names of accounts that nobody owns; nil: none. Not called concurrently
	Names         int               // tried names kept; 0: 262,144
	Sources       int               // sources kept with their first 3 names; 0: 32,768
	Rings         int               // sources kept with their last 64 names; 0: 65,536
	Marks         int               // sources and fingerprints kept that tried a decoy; 0: 65,536
}

// Names looks at which names are tried, whatever the password.
//
// A dictionary: names that failed for strangers from 3 networks or more, and that
// nobody ever logged in with. A completed log-in with the name exempts it for good, as
// long as the name is kept, and so does whatever else tells that somebody owns it: an
// account, completed log-ins in its history, the directory. Attempts that the account's
// own devices and networks speak for are not counted.
//
// Enumeration: the last 64 different names tried from a network, in log-ins that were
// answered and in requests for a reset or an identification. How many of them the gate
// does not know, how many follow their predecessor in the alphabet, how much their first
// two characters are alike (1 less the normalised entropy) and how many share a domain.
// The last three need Name.Display, and are 0 where the policy does not allow to keep it.
// A people's office has one domain and similar names; these two say something only
// together with names that are not known.
//
// Decoys: whoever tries a name that nobody owns read it somewhere, or guesses. The
// source network and the fingerprint are marked for 24 h. A mark is pushed out by other
// marks alone, so no flood of other sources loses it. A fingerprint with which people
// go on logging in, three times from trusted devices, is not marked any more: it is a
// browser that many use.
//
// It keeps per name that was tried by strangers or logged in with 6 networks, as hashes
// of 32 bits (44 bytes; forgotten after 7 idle days, dictionary names last); per source
// 3 names of 16 bytes (88 bytes; those with one name go first), and of at most Rings sources with 4 names or more the
// last 64 (1,064 bytes, forgotten after an idle day, those whose names are known first);
// per mark 32 bytes. Of the latest name of each source it keeps the first 16 characters.
// All full: 12 + 3 + 67 + 2 MiB, and at most 10 bytes each for their indices.
//
// It says [Signal]s name.dictionary, name.sources, name.decoy, source.unknown_names,
// source.ascending, source.alike_names, source.one_domain, source.decoy and client.decoy.
//
// It accepts these false positives: an old or mistyped name that people in three
// places use, as after a company changed its domain, is a dictionary name until one of
// them gets in with it; a list of newcomers entered in order looks like enumeration; and
// everybody behind an address shares the mark of the one who tried a decoy.
type Names struct {
	config NamesConfig
	decoys *atomic.Pointer[func(Digest) bool] // shared with the detectors made by empty

	tried *table[uint64, triedName]
	few   *table[sourceKey, fewNames]
	rings *table[sourceKey, nameRing]
	marks *table[uint64, decoyMark]
}

const (
	triedForget       = 7 * 24 * time.Hour
	dictionarySources = 3
	mostNameSources   = 6

	ringForget    = 24 * time.Hour
	ringNames     = 64
	firstNames    = 3
	enoughNames   = 8    // before a share means anything
	saidUnknown   = 0.25 // shares below are what offices have, and are not said
	saidAscending = 0.60
	saidAlike     = 0.50
	saidDomain    = 0.50

	decoyLasts   = 24 * time.Hour
	decoyCleared = 3 // log-ins from trusted devices
)

// Salts of what this file keeps in one table.
const (
	decoySourceSalt = iota + 128
	decoyClientSalt
	domainSalt
)

// triedName is a name that strangers failed with, or that somebody logged in with.
type triedName struct {
	sources [mostNameSources]uint32 // different networks, as they came; 0: none
	owned   bool                    // somebody completed a log-in with it
}

func (v *triedName) count() int {
	for i, s := range v.sources {
		if s == 0 {
			return i
		}
	}
	return len(v.sources)
}

func (v *triedName) dictionary() bool {
	return !v.owned && v.sources[dictionarySources-1] != 0
}

// nameSeen is what is kept of a name that a source tried, in 16 bytes.
type nameSeen struct {
	hash   uint64
	domain uint32 // hash of what follows the @; 0: not known
	start  uint16 // first two characters
	flags  uint8
}

const (
	nameUnknown   = 1 << iota // to the gate
	nameShown                 // start is known
	nameOrdered               // it differs from its predecessor in the first 16 characters, both known
	nameAscending             // and follows it in the alphabet
	nameFlags     = 1<<iota - 1
)

type namePrefix [16]byte

type fewNames struct {
	names [firstNames]nameSeen
	n     uint8
	last  namePrefix // of the latest name; zero: not known
}

type nameRing struct {
	names   [ringNames]nameSeen
	n, next uint8
	unknown uint8 // how many are
	last    namePrefix
}

type decoyMark struct {
	at      int64 // Unix nanoseconds of the latest hit
	cleared uint8 // log-ins from trusted devices since
}

// NewNames returns a detector that has seen nothing.
func NewNames(c NamesConfig) *Names {
	if c.Names <= 0 {
		c.Names = 1 << 18
	}
	if c.Sources <= 0 {
		c.Sources = 1 << 15
	}
	if c.Rings <= 0 {
		c.Rings = 1 << 16
	}
	if c.Marks <= 0 {
		c.Marks = 1 << 16
	}
	n := &Names{
		config: c,
		decoys: new(atomic.Pointer[func(Digest) bool]),
		tried:  newTable[uint64](c.Names, triedForget, (*triedName).dictionary, nil),
		few: newTable[sourceKey](c.Sources, ringForget,
			func(v *fewNames) bool { return v.n > 1 }, nil),
		rings: newTable[sourceKey](c.Rings, ringForget,
			func(v *nameRing) bool { return v.n >= enoughNames && 2*v.unknown >= v.n }, nil),
		marks: newTable[uint64](c.Marks, decoyLasts, func(*decoyMark) bool { return true }, nil),
	}
	n.tried.form = form[uint64, triedName]{writeTriedName, readTriedName}
	n.few.form = form[sourceKey, fewNames]{writeFewNames, readFewNames}
	n.rings.form = form[sourceKey, nameRing]{writeNameRing, readNameRing}
	n.marks.form = form[uint64, decoyMark]{writeDecoyMark, readDecoyMark}
	n.SetDecoys(c.Decoys)
	return n
}

// SetDecoys replaces the decoys, also those of a set that was restored since; nil:
// none. It may be called at any time. Marks stay.
func (n *Names) SetDecoys(decoys func(Digest) bool) {
	if decoys == nil {
		n.decoys.Store(nil)
		return
	}
	n.decoys.Store(&decoys)
}

func (n *Names) decoy(d Digest) bool {
	decoys := n.decoys.Load()
	return decoys != nil && !d.IsZero() && (*decoys)(d)
}

// Signals implements [Detector].
func (n *Names) Signals() []Description {
	return []Description{
		{Name: "name.dictionary", Unit: "0 or 1", Max: 1, Meaning: "1 for a name that failed from 3 networks or more and that nobody is known to own"},
		{Name: "name.sources", Unit: "networks", Max: mostNameSources, Meaning: "different networks, other than the account's own, from which the name failed within 7 days; counts to 6"},
		{Name: "name.decoy", Unit: "0 or 1", Max: 1, Meaning: "1 for the name of a decoy account, which nobody owns"},
		{Name: "source.unknown_names", Unit: "share", Max: 1, Meaning: "names that the gate does not know, among the last 64 different ones from the source network; from 8 names and 0.25 up"},
		{Name: "source.ascending", Unit: "share", Max: 1, Meaning: "names that follow their predecessor in the alphabet, among the last 64; by chance 0.5; from 8 names and 0.6 up, where names may be kept"},
		{Name: "source.alike_names", Unit: "share", Max: 1, Meaning: "1 less the normalised entropy of the first two characters of the last 64 names; from 8 names and 0.5 up, where names may be kept"},
		{Name: "source.one_domain", Unit: "share", Max: 1, Meaning: "most frequent domain among the last 64 names; from 8 names and 0.5 up, where names may be kept"},
		{Name: "source.decoy", Unit: "0 or 1", Max: 1, Meaning: "1 for 24 h after a decoy account was tried from the source network"},
		{Name: "client.decoy", Unit: "0 or 1", Max: 1, Meaning: "1 for 24 h after a decoy account was tried with the client's fingerprint, unless people log in with it too"},
	}
}

// owned reports whether anything but the table tells that somebody owns e's name.
func owned(e *Event) bool {
	return e.Account != "" || e.Existence == Exists || e.History.Logins > 0
}

func decoySource(e *Event) uint64 { return mix(uint64(keyOf(e.Source)) ^ mix(decoySourceSalt)) }
func decoyClient(e *Event) uint64 { return hash64(decoyClientSalt, e.Fingerprint) }

// Assess tells what is known before e, or after it when e was observed already.
func (n *Names) Assess(e Event) []Signal { return n.assess(&e) }

func (n *Names) assess(e *Event) []Signal {
	var signals []Signal
	if !e.Name.Digest.IsZero() {
		if v, _ := n.tried.find(nameHash(e), e.Time); v != nil && v.sources[0] != 0 {
			failed := v.count()
			s := Signal{Name: "name.sources", Value: float64(failed)}
			if v.dictionary() && !owned(e) {
				s.Why = fmt.Sprintf("a name that nobody is known to own failed from %s networks", upTo(failed, mostNameSources))
				signals = append(signals, Signal{Name: "name.dictionary", Value: 1, Why: s.Why})
			}
			if failed > 1 {
				signals = append(signals, s)
			}
		}
		if n.decoy(e.Name.Digest) {
			signals = append(signals, Signal{Name: "name.decoy", Value: 1, Why: "the name of a decoy account, which nobody owns"})
		}
	}
	if v, _ := n.rings.find(keyOf(e.Source), e.Time); v != nil && v.n >= enoughNames {
		signals = v.say(signals, e)
	}
	if n.marks.len() == 0 {
		return signals
	}
	if n.marked(decoySource(e), e.Time) {
		signals = append(signals, Signal{Name: "source.decoy", Value: 1,
			Why: fmt.Sprintf("%s tried a decoy account within the last 24 h", sourceName(e.Source))})
	}
	if e.Fingerprint != "" && n.marked(decoyClient(e), e.Time) {
		signals = append(signals, Signal{Name: "client.decoy", Value: 1,
			Why: fmt.Sprintf("this client program (%.60s) tried a decoy account within the last 24 h", e.Fingerprint)})
	}
	return signals
}

func upTo(n, most int) string {
	if n == most {
		return fmt.Sprintf("%d or more", n)
	}
	return fmt.Sprint(n)
}

func (n *Names) marked(k uint64, now time.Time) bool {
	v, _ := n.marks.find(k, now)
	return v != nil && v.cleared < decoyCleared && idleSince(v.at, now) < decoyLasts
}

// entropyTerm is c ln c.
var entropyTerm = func() (t [ringNames + 1]float64) {
	for c := 2; c <= ringNames; c++ {
		t[c] = float64(c) * math.Log(float64(c))
	}
	return t
}()

// say appends what is remarkable about the names of a source.
func (v *nameRing) say(signals []Signal, e *Event) []Signal {
	var starts, domains [256]uint8 // by the low bits of a hash: collisions make names a little more alike
	ordered, ascending, shown, repeats, hosts, oneHost := 0, 0, 0, 0.0, 0, uint8(0)
	for i := range v.names[:v.n] {
		s := &v.names[i]
		if s.flags&nameOrdered != 0 {
			ordered++
		}
		if s.flags&nameAscending != 0 {
			ascending++
		}
		if s.flags&nameShown != 0 {
			shown++
			c := &starts[uint8(s.start)*31^uint8(s.start>>8)]
			repeats -= entropyTerm[*c]
			*c++
			repeats += entropyTerm[*c]
		}
		if s.domain != 0 {
			hosts++
			c := &domains[uint8(s.domain)]
			*c++
			oneHost = max(oneHost, *c)
		}
	}
	if share := float64(v.unknown) / float64(v.n); share >= saidUnknown {
		signals = append(signals, Signal{Name: "source.unknown_names", Value: share,
			Why: fmt.Sprintf("%d of the last %d different names tried from %s were never seen here", v.unknown, v.n, sourceName(e.Source))})
	}
	if ordered >= enoughNames-1 {
		if share := float64(ascending) / float64(ordered); share >= saidAscending {
			signals = append(signals, Signal{Name: "source.ascending", Value: share,
				Why: fmt.Sprintf("%d of the last %d different names tried from %s followed their predecessor in the alphabet", ascending, ordered, sourceName(e.Source))})
		}
	}
	if shown >= enoughNames {
		// H = ln n - Σ c ln c / n, and 1 - H / ln n is what is left.
		if alike := repeats / entropyTerm[shown]; alike >= saidAlike {
			signals = append(signals, Signal{Name: "source.alike_names", Value: min(alike, 1)})
		}
	}
	if hosts >= enoughNames {
		if share := float64(oneHost) / float64(hosts); share >= saidDomain {
			signals = append(signals, Signal{Name: "source.one_domain", Value: share})
		}
	}
	return signals
}

// Observe implements [Detector].
func (n *Names) Observe(e Event) { n.observe(&e) }

func (n *Names) observe(e *Event) {
	trying := e.Kind == Login || e.Kind == Request || e.Kind == Session && e.Act == "" && e.Outcome == Refused
	if trying && n.decoy(e.Name.Digest) {
		n.mark(decoySource(e), e.Time)
		if e.Fingerprint != "" {
			n.mark(decoyClient(e), e.Time)
		}
	}
	if e.Fingerprint != "" && n.marks.len() > 0 && proven(e) && e.Device.State == Trusted {
		if k := decoyClient(e); n.marked(k, e.Time) {
			v, _ := n.marks.take(k, e.Time)
			v.cleared++
		}
	}
	if e.Name.Digest.IsZero() {
		return
	}
	switch {
	case proven(e):
		v, _ := n.tried.take(nameHash(e), e.Time)
		*v = triedName{owned: true}
	case counted(e) && e.Outcome == Failure && strange(e):
		v, _ := n.tried.take(nameHash(e), e.Time)
		v.fail(max(hash32(uint64(keyOf(e.Source))), 1))
	}
	if e.Kind == Login && e.Outcome != Unknown || e.Kind == Request && (e.Route == Reset || e.Route == Identify) {
		n.list(e)
	}
}

func (n *Names) mark(k uint64, now time.Time) {
	v, _ := n.marks.take(k, now)
	v.at, v.cleared = max(v.at, now.UnixNano()), 0
}

func (v *triedName) fail(source uint32) {
	for i, s := range v.sources {
		if s == source {
			return
		}
		if s == 0 {
			v.sources[i] = source
			return
		}
	}
}

// list puts e's name among those that its source tried.
func (n *Names) list(e *Event) {
	k := keyOf(e.Source)
	seen, prefix := n.seen(e)
	if v, _ := n.rings.find(k, e.Time); v != nil {
		v, _ = n.rings.take(k, e.Time)
		v.add(seen, prefix)
		return
	}
	few, _ := n.few.take(k, e.Time)
	for i := range few.names[:few.n] {
		if s := &few.names[i]; s.hash == seen.hash {
			s.know(seen.flags)
			return
		}
	}
	if few.n < firstNames {
		seen.flags |= order(few.last, prefix)
		few.names[few.n], few.last = seen, prefix
		few.n++
		return
	}
	v, _ := n.rings.take(k, e.Time)
	copy(v.names[:], few.names[:])
	v.n, v.next, v.last = firstNames, firstNames, few.last
	for i := range few.names {
		v.unknown += few.names[i].flags & nameUnknown
	}
	v.add(seen, prefix)
}

// seen is what is kept of e's name.
func (n *Names) seen(e *Event) (s nameSeen, prefix namePrefix) {
	s.hash = nameHash(e)
	if !proven(e) && (e.Existence == Missing ||
		e.Existence == Unsure && e.Account == "" && e.Outcome != Success && !learning(e, n.config.LearningUntil)) {
		s.flags = nameUnknown
	}
	shown := e.Name.Display
	if shown == "" {
		return s, prefix
	}
	s.flags |= nameShown
	copy(prefix[:], shown)
	s.start = binary.BigEndian.Uint16(prefix[:2])
	if at := strings.LastIndexByte(shown, '@'); at >= 0 {
		s.domain = max(uint32(hash64(domainSalt, shown[at+1:])), 1)
	}
	return s, prefix
}

// order tells how a name follows the one before it.
func order(before, now namePrefix) uint8 {
	if before == now || before == (namePrefix{}) || now == (namePrefix{}) {
		return 0
	}
	if string(before[:]) < string(now[:]) {
		return nameOrdered | nameAscending
	}
	return nameOrdered
}

// know takes over from flags whether the name is known now.
func (s *nameSeen) know(flags uint8) { s.flags = s.flags&^nameUnknown | flags&nameUnknown }

func (v *nameRing) add(seen nameSeen, prefix namePrefix) {
	for i := range v.names[:v.n] {
		if s := &v.names[i]; s.hash == seen.hash {
			v.unknown -= s.flags & nameUnknown
			s.know(seen.flags)
			v.unknown += s.flags & nameUnknown
			return
		}
	}
	seen.flags |= order(v.last, prefix)
	v.unknown -= v.names[v.next].flags & nameUnknown
	v.unknown += seen.flags & nameUnknown
	v.names[v.next], v.last = seen, prefix
	v.next = (v.next + 1) % ringNames
	v.n = min(v.n+1, ringNames)
}

func (n *Names) form() string     { return "names/2" }
func (n *Names) tables() []pieces { return []pieces{n.tried, n.few, n.rings, n.marks} }

func (n *Names) empty() stored {
	fresh := NewNames(n.config)
	fresh.decoys = n.decoys
	return fresh
}

func writeTriedName(b []byte, k uint64, v *triedName) []byte {
	b = binary.BigEndian.AppendUint64(b, k)
	for _, s := range v.sources {
		b = binary.BigEndian.AppendUint32(b, s)
	}
	return appendBool(b, v.owned)
}

func readTriedName(c *snapshot.Cursor, k *uint64, v *triedName) {
	*k = c.Uint64()
	for i := range v.sources {
		v.sources[i] = c.Uint32()
	}
	v.owned = readBool(c)
}

func appendBool(b []byte, x bool) []byte {
	if x {
		return append(b, 1)
	}
	return append(b, 0)
}

func readBool(c *snapshot.Cursor) bool {
	x := c.Byte()
	if x > 1 {
		c.Fail()
	}
	return x == 1
}

func writeNamesSeen(b []byte, names []nameSeen, last namePrefix) []byte {
	b = append(b, byte(len(names)))
	for i := range names {
		s := &names[i]
		b = binary.BigEndian.AppendUint64(b, s.hash)
		b = binary.BigEndian.AppendUint32(b, s.domain)
		b = binary.BigEndian.AppendUint16(b, s.start)
		b = append(b, s.flags)
	}
	return append(b, last[:]...)
}

// readNamesSeen fills names from the front and returns how many there are.
func readNamesSeen(c *snapshot.Cursor, names []nameSeen, last *namePrefix) (n, unknown uint8) {
	n = c.Byte()
	if int(n) > len(names) {
		c.Fail()
		return 0, 0
	}
	for i := range names[:n] {
		s := nameSeen{c.Uint64(), c.Uint32(), c.Uint16(), c.Byte()}
		if s.flags&^nameFlags != 0 {
			c.Fail()
			return 0, 0
		}
		names[i] = s
		unknown += s.flags & nameUnknown
	}
	copy(last[:], c.Bytes(len(last)))
	return n, unknown
}

func writeFewNames(b []byte, k sourceKey, v *fewNames) []byte {
	return writeNamesSeen(binary.BigEndian.AppendUint64(b, uint64(k)), v.names[:v.n], v.last)
}

func readFewNames(c *snapshot.Cursor, k *sourceKey, v *fewNames) {
	*k = sourceKey(c.Uint64())
	v.n, _ = readNamesSeen(c, v.names[:], &v.last)
}

func writeNameRing(b []byte, k sourceKey, v *nameRing) []byte {
	b = append(binary.BigEndian.AppendUint64(b, uint64(k)), v.next)
	return writeNamesSeen(b, v.names[:v.n], v.last)
}

func readNameRing(c *snapshot.Cursor, k *sourceKey, v *nameRing) {
	*k, v.next = sourceKey(c.Uint64()), c.Byte()
	v.n, v.unknown = readNamesSeen(c, v.names[:], &v.last)
	if v.next >= ringNames || v.n < ringNames && v.next != v.n {
		c.Fail()
	}
}

func writeDecoyMark(b []byte, k uint64, v *decoyMark) []byte {
	b = binary.BigEndian.AppendUint64(b, k)
	return append(binary.BigEndian.AppendUint64(b, uint64(v.at)), v.cleared)
}

func readDecoyMark(c *snapshot.Cursor, k *uint64, v *decoyMark) {
	*k, v.at, v.cleared = c.Uint64(), int64(c.Uint64()), c.Byte()
	if v.cleared > decoyCleared {
		c.Fail()
	}
}
