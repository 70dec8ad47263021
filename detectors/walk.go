package detectors

import (
	"encoding/binary"
	"time"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// walker runs Wald's test for many subjects, whatever they are: a network, a client
// program, both together, a wider network. [Sequential] says how it goes.
type walker struct {
	learning time.Time
	cap      float64 // nats of credit per subject and 12 h, if few log in there; see room
	subjects *table[sourceKey, walkState]
	budget   int // entries of memory that may still be allocated
}

type walkState struct {
	ratio          float64 // nats, 0..limit+cap
	used           float64 // nats that credits took off, decayed to the last event
	failed, passed uint32  // different names and accounts since the subject was last forgotten
	members        uint32  // different members that failed since then, where they are told apart
	vouched        float32 // accounts that vouched for it, decayed to the last event
	memory         memory
}

// memberFailures is how many names of one member count for the subject that it
// belongs to.
const memberFailures = 3

func newWalker(subjects int, cap float64, learning time.Time) *walker {
	w := &walker{learning: learning, cap: cap, budget: allPairs}
	w.subjects = newTable[sourceKey](subjects, 5*halfLife,
		func(v *walkState) bool { return v.ratio >= sequentialLimit/2 },
		func(v *walkState) { v.memory.release(&w.budget) })
	w.subjects.form = form[sourceKey, walkState]{writeWalk, w.readWalk}
	return w
}

// standing is the state of a subject that is worth telling, or nil.
func (w *walker) standing(k sourceKey, now time.Time) *walkState {
	v, idle := w.subjects.find(k, now)
	if v == nil || v.ratio == 0 || idle >= quiet {
		return nil
	}
	return v
}

// walk takes a step for the subject k. member tells apart what the subject consists
// of; 0: it is one.
func (w *walker) walk(k sourceKey, e *Event, c class, member uint64) {
	if !counted(e) || e.Unproven || e.Outcome == Failure && !strange(e) {
		return
	}
	v, idle := w.subjects.take(k, e.Time)
	v.used, v.vouched = decayed(v.used, idle), float32(decayed(float64(v.vouched), idle))
	if idle >= quiet {
		v.memory.release(&w.budget)
		v.ratio, v.failed, v.passed, v.members, v.vouched = 0, 0, 0, 0, 0
	}
	if e.Outcome == Failure {
		w.fail(v, e, c, member)
	} else {
		w.pass(v, e, c)
	}
}

func (w *walker) fail(v *walkState, e *Event, c class, member uint64) {
	// Being tried again renews the name: a client with a stale password,
	// looping for a week, is one failure and not one per 12 h.
	name := nameHash(e)
	if v.memory.see(name, e.Time, true, &w.budget) {
		return
	}
	if member != 0 && !w.admit(v, e.Time, member) {
		return
	}
	v.failed++
	if v.ratio += c.failure; v.ratio <= sequentialLimit+creditRoom {
		v.memory.owe(name, e.Time)
	} else {
		v.ratio = sequentialLimit + creditRoom
	}
}

// creditRoom is how far above its limit a ratio may be, in nats.
const creditRoom = 100

// admit reports whether another name of a member counts.
func (w *walker) admit(v *walkState, now time.Time, member uint64) bool {
	for i := range uint64(memberFailures) {
		if !v.memory.see(mix(member+i), now, true, &w.budget) {
			if i == 0 {
				v.members++
			}
			return true
		}
	}
	return false
}

func (w *walker) pass(v *walkState, e *Event, c class) {
	name := nameHash(e)
	if ago, ok := v.memory.settle(name, e.Time); ok {
		// What others' credit took off this failure already, they get back:
		// otherwise an office would spend the cap on failures that were none.
		taken := min(c.failure, v.ratio)
		v.ratio -= taken
		v.used = max(0, v.used-decayed(c.failure-taken, ago))
	}
	v.memory.see(name, e.Time, true, &w.budget)
	if v.memory.see(accountHash(e), e.Time, false, &w.budget) {
		return
	}
	v.passed++
	if !vouches(e, w.learning) {
		return
	}
	v.vouched++
	credit := min(v.ratio, c.success)
	if !learning(e, w.learning) {
		credit = max(0, min(credit, w.room(v)-v.used))
		v.used += credit
	}
	v.ratio -= credit
}

// crowdCredit is how many accounts that vouch for a subject make one nat of credit, where
// that is more than the cap.
const crowdCredit = 20

// room is how much credit a subject has in 12 h. Where thousands log in, hundreds of
// them fail in ways that a stranger does, and a cap for an office of a hundred would
// last for an hour. Up to 20 times as many accounts as the cap has nats buy nothing more;
// after that it takes 14 to 28 of them for one attempt.
func (w *walker) room(v *walkState) float64 { return max(w.cap, float64(v.vouched)/crowdCredit) }

func writeWalk(b []byte, k sourceKey, v *walkState) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(k))
	b = appendAmount(appendAmount(appendAmount(b, v.ratio), v.used), float64(v.vouched))
	b = binary.BigEndian.AppendUint32(b, v.failed)
	b = binary.BigEndian.AppendUint32(b, v.passed)
	b = binary.BigEndian.AppendUint32(b, v.members)
	more := v.memory.more()
	b = binary.BigEndian.AppendUint16(b, uint16(len(more)))
	for _, part := range [2][]uint64{v.memory.inline[:], more} {
		for _, e := range part {
			b = binary.BigEndian.AppendUint64(b, e)
		}
	}
	return b
}

func (w *walker) readWalk(c *snapshot.Cursor, k *sourceKey, v *walkState) {
	*k = sourceKey(c.Uint64())
	v.ratio, v.used, v.vouched = c.Amount(sequentialLimit+creditRoom), c.Amount(mostAmount), float32(c.Amount(mostAmount))
	v.failed, v.passed, v.members = c.Uint32(), c.Uint32(), c.Uint32()
	size := int(c.Uint16())
	possible := size == 0
	for n := bucketPairs; n <= maxPairs; n *= 4 {
		possible = possible || size == n
	}
	if !possible || size > w.budget || c.Len() < 8*(inlinePairs+size) {
		c.Fail()
		return
	}
	if size > 0 {
		w.budget -= size
		many := make([]uint64, size)
		v.memory.many = &many
	}
	for _, part := range [2][]uint64{v.memory.inline[:], v.memory.more()} {
		for i := range part {
			part[i] = c.Uint64()
		}
	}
}
