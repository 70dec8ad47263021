package detectors

// near has the processor fetch what the detectors keep of an event, all at once. With a
// million sources nearly every state of an event lies in memory that was not used for
// minutes. Asked one after the other, as the detectors do, some forty times the memory
// is waited for; the loads here do not depend on each other, so that the processor
// waits for all of them together: once for the buckets of the indices, once for the
// slots, and once for the names and accounts that a network of many was seen with. It changes nothing, and what it leaves out, or fetches in vain, costs time and
// nothing else.
type near struct {
	asks  []ask
	walks []walkAsk
	keys  keys   // of the latest event
	sink  uint64 // of what was read, for the compiler must not leave it out
}

type ask struct {
	of   lines
	hash uint64
}

// lines are those of a table.
type lines interface {
	readBucket(hash uint64) uint64
	readSlot(hash uint64) uint64
}

type walkAsk struct {
	of   *walker
	hash uint64
}

// nearby is a detector that tells what it is going to ask for.
type nearby interface {
	near(n *near, k *keys, e *Event)
}

// keys are what the state of an event is found by.
type keys struct {
	nameHash, accountHash uint64
	source, name, account uint64 // hashes of the index
}

func (n *near) fetch(detectors []nearby, e *Event) {
	k := keys{nameHash: nameHash(e), accountHash: accountHash(e), source: indexHash(uint64(keyOf(e.Source)))}
	k.name, k.account = indexHash(k.nameHash), indexHash(k.accountHash)
	if k == n.keys {
		return // it is near: the outcome of the same attempt
	}
	n.keys, n.asks, n.walks = k, n.asks[:0], n.walks[:0]
	for _, d := range detectors {
		d.near(n, &n.keys, e)
	}
	for _, a := range n.asks {
		n.sink ^= a.of.readBucket(a.hash)
	}
	for _, a := range n.asks {
		n.sink ^= a.of.readSlot(a.hash)
	}
	for _, a := range n.walks {
		n.sink ^= a.of.readMemory(a.hash, &k)
	}
}

func (n *near) ask(t lines, hash uint64) { n.asks = append(n.asks, ask{t, hash}) }

func (n *near) askWalker(w *walker, hash uint64) {
	n.ask(w.subjects, hash)
	n.walks = append(n.walks, walkAsk{w, hash})
}

func (t *table[K, V]) readBucket(h uint64) uint64 {
	s := t.index.shard(h)
	return s.buckets[s.home(h)].first()
}

// readSlot reads both ends of the slot that h probably has. A full table that has none
// will choose one to go soon.
func (t *table[K, V]) readSlot(h uint64) uint64 {
	if slot := t.index.probably(h); slot >= 0 {
		s := t.at(slot)
		return uint64(s.key) ^ uint64(s.seen)
	}
	var x uint64
	if t.len() == t.limit {
		for i := range min(sample, t.limit-t.hand) {
			x ^= uint64(t.at(t.hand + i).seen)
		}
	}
	return x
}

// readMemory reads where the names and accounts of the subject that h probably has are
// looked up.
func (w *walker) readMemory(h uint64, k *keys) uint64 {
	slot := w.subjects.index.probably(h)
	if slot < 0 {
		return 0
	}
	m := &w.subjects.at(slot).value.memory
	if m.many == nil {
		return 0
	}
	return m.bucket(k.nameHash)[0] ^ m.bucket(k.accountHash)[0]
}

func (h *Histories) near(n *near, k *keys, e *Event) {
	n.ask(h.networks, k.source)
	n.ask(h.accounts, k.account)
}

func (p *Passwords) near(n *near, k *keys, e *Event) {
	if !e.Password.Digest.IsZero() {
		n.ask(p.pairs, indexHash(pairHash(e)))
		n.ask(p.spread, indexHash(passwordHash(e)))
	}
}

func (s *Sequential) near(n *near, k *keys, e *Event) { n.askWalker(s.walker, k.source) }

func (p *Prefixes) near(n *near, k *keys, e *Event) {
	for i, w := range p.levels {
		if key, ok := level(e, i); ok {
			n.askWalker(w, indexHash(uint64(key)))
		}
	}
}

func (p *Penalty) near(n *near, k *keys, e *Event) { n.ask(p.sources, k.source) }

func (n *Names) near(to *near, k *keys, e *Event) {
	if !e.Name.Digest.IsZero() {
		to.ask(n.tried, k.name)
		to.ask(n.rings, k.source)
		to.ask(n.few, k.source)
	}
}

func (d *Accounts) near(n *near, k *keys, e *Event) {
	if !e.Device.Known() {
		n.ask(d.accounts, k.account)
		if e.Account != "" && !e.Name.Digest.IsZero() {
			n.ask(d.accounts, indexHash(unnamedHash(e)))
		}
	}
}

func (l *Loops) near(n *near, k *keys, e *Event) {
	if e.Kind == Login && !e.Password.Digest.IsZero() {
		n.ask(l.pairs, indexHash(loopKey(e)))
		n.ask(l.sources, k.source)
	}
}

func (d *Campaigns) near(n *near, k *keys, e *Event) {
	n.ask(d.passed, k.accountHash)
	if o := e.Organization; o != "" {
		n.ask(d.organizations, indexHash(hash64(organizationSalt, string(o))))
	}
}
