package record

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// Denial is something that was refused, of which there may be very many.
type Denial struct {
	Time   time.Time // zero is now
	Kind   string
	Reason string
	// Key is what repeats: an address, a network, a digest. Not what somebody typed,
	// which may be a password. Of one longer than 64 bytes a hash is kept.
	Key string
}

// OtherDenials is the kind under which denials are counted when there are more
// kinds and reasons than a program has, or when they are not names.
const OtherDenials = "denial.other"

const (
	sumsMax  = 256 // kinds and reasons that are told apart
	sumsKeys = 32  // keys that an entry names
	keyMax   = 64  // bytes of a key
)

// Tally is the body of an aggregated entry. Its leaf has the exact count.
type Tally struct {
	From time.Time  `json:"from"`
	To   time.Time  `json:"to"`
	Keys []TallyKey `json:"keys,omitempty"` // the most frequent ones first, at most 32
	// More: there were other keys. Every key that had more than a 32nd part of the
	// count is among Keys.
	More bool `json:"more,omitempty"`
}

// TallyKey is how often a key was seen, within two bounds.
type TallyKey struct {
	Key     string `json:"key"`
	AtLeast uint64 `json:"at_least"`
	AtMost  uint64 `json:"at_most"`
}

type sumKey struct{ kind, reason string }

// sum counts one kind and reason. Keys are counted by the space-saving algorithm
// (Metwally, Agrawal, El Abbadi 2005), in bounded memory.
type sum struct {
	sumKey
	count    uint64
	from, to time.Time
	keys     []keyCount
	more     bool
}

type keyCount struct {
	key          string
	count, error uint64 // count is at most error too high
}

func (s *sum) add(key string, n, e uint64) {
	least := -1
	for i := range s.keys {
		k := &s.keys[i]
		if k.key == key {
			k.count, k.error = k.count+n, k.error+e
			return
		}
		if least < 0 || k.count < s.keys[least].count {
			least = i
		}
	}
	if len(s.keys) < sumsKeys {
		s.keys = append(s.keys, keyCount{key, n, e})
		return
	}
	s.more = true
	k := &s.keys[least]
	*k = keyCount{key, k.count + n, k.count + e}
}

func (s *sum) merge(o *sum) {
	s.count += o.count
	s.span(o.from, o.to)
	for _, k := range o.keys {
		s.add(k.key, k.count, k.error)
	}
	s.more = s.more || o.more
}

func (s *sum) span(from, to time.Time) {
	if s.from.IsZero() || from.Before(s.from) {
		s.from = from
	}
	if to.After(s.to) {
		s.to = to
	}
}

// item is the entry of a sum. Its time is that of the first denial.
func (s *sum) item() item {
	t := Tally{From: s.from.UTC(), To: s.to.UTC(), More: s.more}
	slices.SortFunc(s.keys, func(a, b keyCount) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.key, b.key))
	})
	for _, k := range s.keys {
		t.Keys = append(t.Keys, TallyKey{k.key, k.count - k.error, k.count})
	}
	body, err := json.Marshal(t)
	if err != nil { // not of times and strings like these
		body = []byte("null")
	}
	return item{time: s.from, kind: s.kind, reason: s.reason, class: Aggregated, count: s.count, body: body}
}

// sums are the denials that are in no entry yet.
type sums struct {
	mu     sync.Mutex
	open   map[sumKey]*sum // at most sumsMax and one
	count  uint64
	quota  float64 // bytes an hour, and at once
	tokens float64 // bytes that may be written now; below zero: the last one was larger
	at     time.Time
}

func (s *sums) init(quota int64, now time.Time) {
	s.open, s.quota, s.tokens, s.at = make(map[sumKey]*sum), float64(quota), float64(quota), now
}

// Count adds d to what the next aggregated entry of its kind and reason says. It
// never waits for the disk. What was counted and not written is lost in a crash.
func (l *Log) Count(d Denial) {
	if d.Time.IsZero() {
		d.Time = l.cfg.Now()
	}
	l.sums.countOne(d)
}

func (s *sums) countOne(d Denial) {
	k := sumKey{d.Kind, d.Reason}
	s.mu.Lock()
	defer s.mu.Unlock()
	if micro := d.Time.UnixMicro(); micro < 0 || micro >= timeMax {
		d.Time = s.at
	}
	t := s.open[k]
	if t == nil {
		if d.Kind == "" || !validName(d.Kind) || !validName(d.Reason) {
			k = sumKey{OtherDenials, ""}
		}
		t = s.sumLocked(k)
	}
	t.count++
	s.count++
	t.span(d.Time, d.Time)
	if d.Key == "" {
		return
	}
	if len(d.Key) > keyMax {
		h := sha256.Sum256([]byte(d.Key))
		d.Key = "sha256:" + hex.EncodeToString(h[:16])
	}
	t.add(d.Key, 1, 0)
}

// sumLocked finds or begins a sum.
func (s *sums) sumLocked(k sumKey) *sum {
	if t := s.open[k]; t != nil {
		return t
	}
	if other := (sumKey{OtherDenials, ""}); len(s.open) >= sumsMax && k != other {
		return s.sumLocked(other)
	}
	t := &sum{sumKey: k}
	s.open[k] = t
	return t
}

// take removes the sums that may be written now, those that wait longest first.
func (s *sums) take(node string, now time.Time, all bool) (taken []*sum, items []item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if passed := now.Sub(s.at); passed > 0 {
		s.tokens = min(s.quota, s.tokens+s.quota*passed.Hours())
	}
	s.at = now
	order := make([]*sum, 0, len(s.open))
	for _, t := range s.open {
		order = append(order, t)
	}
	slices.SortFunc(order, func(a, b *sum) int {
		return cmp.Or(a.from.Compare(b.from), cmp.Compare(a.kind, b.kind), cmp.Compare(a.reason, b.reason))
	})
	room := groupFit
	for _, t := range order {
		if s.tokens <= 0 && !all || len(taken) == groupMax {
			break
		}
		it := t.item()
		n := it.size(node)
		if room -= n; room < 0 {
			break
		}
		s.tokens -= float64(n)
		delete(s.open, t.sumKey)
		s.count -= t.count
		taken, items = append(taken, t), append(items, it)
	}
	return taken, items
}

// giveBack takes sums again that could not be written.
func (s *sums) giveBack(node string, taken []*sum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range taken {
		s.tokens += float64(t.item().size(node))
		s.count += t.count
		s.sumLocked(t.sumKey).merge(t)
	}
}

// total is how many denials are in no entry.
func (s *sums) total() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}
