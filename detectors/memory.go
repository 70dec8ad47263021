package detectors

import "time"

const (
	remembered  = 12 * time.Hour // how long a name or account counts as seen
	inlinePairs = 2              // enough for one person, who is most sources
	bucketPairs = 8
	maxPairs    = 8192    // per source, 64 KiB: an office of 4,000 with a name and an account each
	allPairs    = 4 << 20 // beyond the inline ones, all sources together: 32 MiB
)

// memory is what one source was seen with: hashes of names and accounts, each
// with the minute it was seen. It grows from 2 entries to 8, 32 and so on to
// 8,192 as long as the detector's budget lasts; after that the oldest of the
// eight that share a bucket makes room. Something forgotten counts as new again.
//
// An entry is 40 bits of hash, a bit for a failure that its own success may take
// back, 22 bits of minutes (they wrap after 7 years) and one bit that says that it
// is an entry. Two of 8,192 names of one source are
// taken for one with a probability of 8,192²/2/2⁴⁰, that is 3 in 100,000.
type memory struct {
	inline [inlinePairs]uint64
	many   *[]uint64 // nil for most sources, which have no need of more
}

// more are the entries beyond the inline ones, a power of four times bucketPairs or none.
func (m *memory) more() []uint64 {
	if m.many == nil {
		return nil
	}
	return *m.many
}

const (
	minuteMask = 1<<22 - 1
	owedBit    = 1 << 23

	owedMinutes = 60
)

func entry(hash uint64, minute uint32) uint64 {
	return hash&^(1<<24-1) | uint64(minute&minuteMask)<<1 | 1
}

func minuteOf(t time.Time) uint32 { return uint32(t.Unix() / 60 & minuteMask) }

// age is in minutes and never negative.
func age(e uint64, minute uint32) uint32 {
	a := (minute - uint32(e>>1)) & minuteMask
	if a > minuteMask/2 {
		return 0
	}
	return a
}

func gone(e uint64, minute uint32) bool {
	return e == 0 || age(e, minute) >= uint32(remembered/time.Minute)
}

func (m *memory) bucket(hash uint64) []uint64 {
	more := m.more()
	if len(more) == 0 {
		return nil
	}
	n := uint64(len(more) / bucketPairs)
	i := int(hash>>24%n) * bucketPairs
	return more[i : i+bucketPairs]
}

// find returns the entry of hash if it was seen in the last 12 h.
func (m *memory) find(hash uint64, minute uint32) *uint64 {
	for _, part := range [2][]uint64{m.inline[:], m.bucket(hash)} {
		for i, e := range part {
			if e>>24 == hash>>24 && !gone(e, minute) {
				return &part[i]
			}
		}
	}
	return nil
}

// see reports whether hash was seen in the last 12 h, and remembers it. With
// renew, being seen again starts the 12 h anew; a failure that is owed keeps its
// time for an hour and is owed no more when it is tried again after that. budget is how many entries the
// detector may still allocate.
func (m *memory) see(hash uint64, now time.Time, renew bool, budget *int) bool {
	minute := minuteOf(now)
	e := m.find(hash, minute)
	if e == nil {
		m.put(entry(hash, minute), minute, budget)
		return false
	}
	if renew && (*e&owedBit == 0 || age(*e, minute) >= owedMinutes) {
		*e = entry(hash, minute)
	}
	return true
}

// owe marks the failure of hash as one that settle may take back.
func (m *memory) owe(hash uint64, now time.Time) {
	if e := m.find(hash, minuteOf(now)); e != nil {
		*e |= owedBit
	}
}

// settle reports whether hash owes a failure and how long ago it was, and
// clears that.
func (m *memory) settle(hash uint64, now time.Time) (ago time.Duration, ok bool) {
	minute := minuteOf(now)
	e := m.find(hash, minute)
	if e == nil || *e&owedBit == 0 {
		return 0, false
	}
	ago = time.Duration(age(*e, minute)) * time.Minute
	*e &^= owedBit
	return ago, true
}

func (m *memory) put(fresh uint64, minute uint32, budget *int) {
	for {
		oldest := &m.inline[0]
		for _, part := range [2][]uint64{m.inline[:], m.bucket(fresh)} {
			for i, e := range part {
				if gone(e, minute) {
					part[i] = fresh
					return
				}
				if age(e, minute) > age(*oldest, minute) {
					oldest = &part[i]
				}
			}
		}
		if !m.grow(minute, budget) {
			*oldest = fresh
			return
		}
	}
}

// grow reports whether there was room for more.
func (m *memory) grow(minute uint32, budget *int) bool {
	old := m.more()
	size := max(bucketPairs, 4*len(old))
	if size > maxPairs || size-len(old) > *budget {
		return false
	}
	*budget -= size - len(old)
	many := make([]uint64, size)
	m.many = &many
	for _, e := range old {
		if gone(e, minute) {
			continue
		}
		// A bucket takes the entries of one old bucket only, so all fit.
		for i, free := range m.bucket(e) {
			if free == 0 {
				m.bucket(e)[i] = e
				break
			}
		}
	}
	return true
}

// release gives back what m holds and forgets all.
func (m *memory) release(budget *int) {
	*budget += len(m.more())
	*m = memory{}
}
