package policies

import (
	"hash/maphash"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"

	"github.com/kidoban/kidoban/rules"
)

// index is the live decisions as a request needs them. Any number of goroutines
// may match; one at a time may put and drop. A reader sees each decision as it was
// before or after a change, never in between.
//
// A decision takes about 190 bytes here, text and prefix table included (see
// BenchmarkMatch).
type index struct {
	prefixes atomic.Pointer[bart.Table[*entry]] // replaced as a whole; tables share their unchanged parts
	asns     table[uint32]
	texts    [len(scopes)]table[string] // by position in scopes; those of prefixes and ASNs stay empty
	size     atomic.Int64

	// Owned by the writer.
	prose map[prose]*sharedProse
}

// entry is one decision, compact and immutable. Entries about one subject form a
// list, as long as there are rules, playbooks and operators that decided on it.
type entry struct {
	next     *entry
	prose    *sharedProse
	text     string // id, value and entry: one allocation
	created  int64  // times in Unix microseconds, 0 for none
	until    int64
	revision uint64
	idLen    uint8
	entryLen uint8
	scope    uint8 // position in scopes
	action   rules.Action
	shadow   bool
	weight   uint8 // precedence between decisions; see weigh
}

// prose is what many decisions have in common. It is kept once.
type prose struct {
	origin   Origin
	by       string
	rule     rules.ID
	reason   string
	incident string
	window   int64 // start of the aligned window that the rule saw, as the times of an entry
}

type sharedProse struct {
	prose
	uses int // owned by the writer
}

func (e *entry) id() string    { return e.text[:e.idLen] }
func (e *entry) value() string { return e.text[e.idLen : len(e.text)-int(e.entryLen)] }
func (e *entry) entry() string { return e.text[len(e.text)-int(e.entryLen):] }

func (e *entry) decision() Decision {
	mode := rules.Enforce
	if e.shadow {
		mode = rules.Shadow
	}
	return Decision{
		ID: e.id(), Scope: scopes[e.scope], Value: e.value(), Action: e.action, Mode: mode,
		Origin: e.prose.origin, By: e.prose.by, Rule: e.prose.rule, Reason: e.prose.reason, Incident: e.prose.incident, Entry: e.entry(),
		Window: fromMicros(e.prose.window), Created: fromMicros(e.created), Until: fromMicros(e.until),
	}
}

// is reports whether e has the identity of d, their subject apart.
func (e *entry) is(d *Decision) bool {
	return e.action == d.Action && e.shadow == (d.Mode == rules.Shadow) && scopes[e.scope] == d.Scope &&
		e.prose.origin == d.Origin && e.prose.by == d.By && e.prose.rule == d.Rule
}

// weigh is the one place where precedence is decided: an operator's denial, an
// operator's allowance, a denial by rule or playbook, an allowance by rule or
// playbook; the stricter denial first.
func weigh(origin Origin, action rules.Action) uint8 {
	w := uint8(action)
	switch operator, denies := origin == OriginOperator, action != rules.Allow; {
	case operator && denies:
		w += 4 << 4
	case operator:
		w += 3 << 4
	case denies:
		w += 2 << 4
	default:
		w += 1 << 4
	}
	return w
}

// outranks decides between decisions of equal weight too, so that every node
// names the same one: the later end, then the lower id.
func (e *entry) outranks(f *entry) bool {
	switch {
	case f == nil:
		return true
	case e.weight != f.weight:
		return e.weight > f.weight
	case e.until != f.until:
		return e.until > f.until
	default:
		return e.id() < f.id()
	}
}

// strongest collects the best decision of each mode.
type strongest struct {
	enforced, shadow *entry
	at               int64
	own              bool
}

// consider looks at all decisions about one subject. Where strangers may have
// caused them, at a place or at an account they guess at, rules and playbooks have
// nothing to say to a device that its account knows.
func (s *strongest) consider(e *entry, strangers bool) {
	for ; e != nil; e = e.next {
		if e.until <= s.at || s.own && strangers && e.prose.origin != OriginOperator {
			continue
		}
		if e.shadow {
			if e.outranks(s.shadow) {
				s.shadow = e
			}
		} else if e.outranks(s.enforced) {
			s.enforced = e
		}
	}
}

func newIndex() *index {
	x := &index{prose: make(map[prose]*sharedProse)}
	x.prefixes.Store(new(bart.Table[*entry]))
	seed := maphash.MakeSeed()
	for i := range x.texts {
		x.texts[i].hash = func(k string) uint64 { return maphash.String(seed, k) }
	}
	x.asns.hash = func(k uint32) uint64 { return uint64(k) * 0x9e3779b97f4a7c15 >> 20 }
	return x
}

func (x *index) match(s *Subject, found *strongest) {
	if t := x.prefixes.Load(); t.Size() > 0 && s.Address.IsValid() {
		found.covering(t, canonicalAddr(s.Address))
	}
	if s.ASN != 0 {
		found.consider(x.asns.get(s.ASN), true)
	}
	if s.Country != "" {
		found.consider(x.texts[scopeCountry].get(s.Country), true)
	}
	if s.Fingerprint != "" {
		found.consider(x.texts[scopeFingerprint].get(s.Fingerprint), true)
	}
	if s.Account != "" {
		found.consider(x.texts[scopeAccount].get(s.Account), true)
	}
	if s.Session != "" {
		found.consider(x.texts[scopeSession].get(s.Session), false)
	}
	if s.Device != "" {
		found.consider(x.texts[scopeDevice].get(s.Device), false)
	}
	if s.Credential != "" {
		found.consider(x.texts[scopeCredential].get(s.Credential), false)
	}
}

// covering considers every prefix that contains a: a narrow one does not hide a
// broad one, since each has its own end, mode and maker.
func (s *strongest) covering(t *bart.Table[*entry], a netip.Addr) {
	if _, ok := t.Lookup(a); !ok {
		return
	}
	for p := netip.PrefixFrom(a, a.BitLen()); ; {
		q, e, ok := t.LookupPrefixLPM(p)
		if !ok {
			return
		}
		s.consider(e, true)
		if q.Bits() == 0 {
			return
		}
		p = netip.PrefixFrom(a, q.Bits()-1)
	}
}

const (
	scopeAddress = iota
	scopeNetwork
	scopeASN
	scopeCountry
	scopeAccount
	scopeSession
	scopeDevice
	scopeCredential
	scopeFingerprint
)

func scopePosition(s Scope) int {
	for i, t := range scopes {
		if s == t {
			return i
		}
	}
	return -1
}

// head is the list on the subject of d.
func (x *index) head(scope Scope, value string) *entry {
	switch i := scopePosition(scope); i {
	case scopeAddress, scopeNetwork:
		p, ok := subjectPrefix(value)
		if !ok {
			return nil
		}
		e, _ := x.prefixes.Load().Get(p)
		return e
	case scopeASN:
		n, _ := strconv.ParseUint(value, 10, 32)
		return x.asns.get(uint32(n))
	case -1:
		return nil
	default:
		return x.texts[i].get(value)
	}
}

func subjectPrefix(value string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(value); err == nil {
		return p, true
	}
	a, err := netip.ParseAddr(value)
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// find is the decision with the identity of d, or with its id; nil when none.
func (x *index) find(d *Decision) *entry {
	for e := x.head(d.Scope, d.Value); e != nil; e = e.next {
		if e.id() == d.ID || e.is(d) && e.value() == d.Value {
			return e
		}
	}
	return nil
}

// put makes d visible, in the place of an older one with its id. It reports
// whether anything changed; an older revision changes nothing. bulk writes into
// the table in place, which only a table without readers allows.
func (x *index) put(d *Decision, revision uint64, bulk bool) bool {
	scope := scopePosition(d.Scope)
	if scope < 0 {
		return false
	}
	head := x.head(d.Scope, d.Value)
	for e := head; e != nil; e = e.next {
		if e.id() == d.ID {
			if e.revision >= revision {
				return false
			}
			head = x.without(head, e)
			break
		}
	}
	x.replace(d.Scope, d.Value, &entry{
		next: head, prose: x.share(d), text: d.ID + d.Value + d.Entry,
		created: micros(d.Created), until: micros(d.Until), revision: revision,
		idLen: uint8(len(d.ID)), entryLen: uint8(len(d.Entry)), scope: uint8(scope), action: d.Action, shadow: d.Mode == rules.Shadow,
		weight: weigh(d.Origin, d.Action),
	}, bulk)
	x.size.Add(1)
	return true
}

// drop makes the decision with the id and subject of d invisible, unless it is
// there in a later revision.
func (x *index) drop(d *Decision, revision uint64) bool {
	head := x.head(d.Scope, d.Value)
	for e := head; e != nil; e = e.next {
		if e.id() == d.ID {
			if e.revision > revision {
				return false
			}
			x.replace(d.Scope, d.Value, x.without(head, e), false)
			return true
		}
	}
	return false
}

// without is the list from head with gone left out. Entries before gone are
// copied, since readers may stand on them.
func (x *index) without(head, gone *entry) *entry {
	x.size.Add(-1)
	if gone.prose.uses--; gone.prose.uses == 0 {
		delete(x.prose, gone.prose.prose)
	}
	list := gone.next
	for e := head; e != gone; e = e.next {
		c := *e
		c.next = list
		list = &c
	}
	return list
}

func (x *index) share(d *Decision) *sharedProse {
	key := prose{d.Origin, d.By, d.Rule, d.Reason, d.Incident, micros(d.Window)}
	p := x.prose[key]
	if p == nil {
		p = &sharedProse{prose: key}
		x.prose[key] = p
	}
	p.uses++
	return p
}

// replace sets the list on a subject; nil removes it.
func (x *index) replace(scope Scope, value string, head *entry, bulk bool) {
	switch i := scopePosition(scope); i {
	case scopeAddress, scopeNetwork:
		p, ok := subjectPrefix(value)
		t := x.prefixes.Load()
		switch {
		case !ok:
		case bulk:
			t.Insert(p, head)
		case head == nil:
			x.prefixes.Store(t.DeletePersist(p))
		default:
			x.prefixes.Store(t.InsertPersist(p, head))
		}
	case scopeASN:
		n, _ := strconv.ParseUint(value, 10, 32)
		x.asns.set(uint32(n), head)
	default:
		x.texts[i].set(value, head)
	}
}

// table is a hash table that one goroutine writes and any number read without a
// lock. An empty one costs its readers one load.
type table[K comparable] struct {
	hash    func(K) uint64
	count   int // owned by the writer
	buckets atomic.Pointer[[]atomic.Pointer[node[K]]]
}

// node is immutable.
type node[K comparable] struct {
	key  K
	head *entry
	next *node[K]
}

func (t *table[K]) get(key K) *entry {
	b := t.buckets.Load()
	if b == nil {
		return nil
	}
	for n := (*b)[t.hash(key)&uint64(len(*b)-1)].Load(); n != nil; n = n.next {
		if n.key == key {
			return n.head
		}
	}
	return nil
}

func (t *table[K]) set(key K, head *entry) {
	b := t.buckets.Load()
	if b == nil {
		if head == nil {
			return
		}
		b = t.resize(16)
	} else if t.count > len(*b)/2 { // most readers look for what is not there

		b = t.resize(2 * len(*b))
	}
	slot := &(*b)[t.hash(key)&uint64(len(*b)-1)]
	var list *node[K]
	had := false
	for n := slot.Load(); n != nil; n = n.next {
		if n.key == key {
			had = true
			continue
		}
		list = &node[K]{n.key, n.head, list}
	}
	if had {
		t.count--
	}
	if head != nil {
		list = &node[K]{key, head, list}
		t.count++
	}
	slot.Store(list)
	if t.count == 0 {
		t.buckets.Store(nil)
	}
}

func (t *table[K]) resize(n int) *[]atomic.Pointer[node[K]] {
	grown := make([]atomic.Pointer[node[K]], n)
	if old := t.buckets.Load(); old != nil {
		for i := range *old {
			for o := (*old)[i].Load(); o != nil; o = o.next {
				slot := &grown[t.hash(o.key)&uint64(n-1)]
				slot.Store(&node[K]{o.key, o.head, slot.Load()})
			}
		}
	}
	t.buckets.Store(&grown)
	return &grown
}

// holds are the hold-offs in force, as far as this node knows: what is not here
// may still be in the store. Bounded by what operators lift in a day.
type holds struct {
	mu   sync.RWMutex
	ends map[hold]int64 // guarded by mu; Unix microseconds
}

type hold struct {
	rule  rules.ID
	scope Scope
	value string
}

func (h *holds) end(d *Decision) int64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.ends[hold{d.Rule, d.Scope, d.Value}]
}

func (h *holds) add(d *Decision) {
	if d.HoldOff.IsZero() || d.Rule == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ends == nil {
		h.ends = make(map[hold]int64)
	}
	k := hold{d.Rule, d.Scope, d.Value}
	h.ends[k] = max(h.ends[k], micros(d.HoldOff))
}

func (h *holds) prune(now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, end := range h.ends {
		if end <= now {
			delete(h.ends, k)
		}
	}
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
