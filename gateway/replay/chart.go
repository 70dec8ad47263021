package replay

import (
	"time"
)

// binsMax is how many bins of time a report has at most.
const binsMax = 60

// Bin is a part of the recorded time.
type Bin struct {
	From   time.Time `json:"from"`
	Events uint64    `json:"events"`
	Old    uint64    `json:"old"` // events that a rule of OLD hit which NEW has not, or has otherwise
	New    uint64    `json:"new"` // events that a rule of NEW hit which OLD has not, or has otherwise
}

// bins counts by time in bounded memory: the bins grow with the time that they cover.
// Their widths divide one another, and are those of clocks and calendars.
type bins struct {
	width int64 // seconds
	first int64 // number of the first bin, counted from 1970
	all   []Bin
}

// at is the bin of t.
func (b *bins) at(t time.Time) *Bin {
	if b.all == nil {
		b.width = 1
		b.first = t.Unix()
		b.all = make([]Bin, 1, binsMax)
	}
	for {
		i := floor(t.Unix(), b.width) - b.first
		switch n := int64(len(b.all)); {
		case i >= 0 && i < n:
			return &b.all[i]
		case i >= n && i < binsMax:
			b.all = b.all[:i+1]
		case i < 0 && n-i <= binsMax:
			b.all = b.all[:n-i]
			copy(b.all[-i:], b.all[:n])
			clear(b.all[:-i])
			b.first += i
		default:
			b.widen()
		}
	}
}

// widen joins bins.
func (b *bins) widen() {
	wider := b.width * 2
	for _, width := range [...]int64{5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 7 * 24 * 3600, 28 * 24 * 3600} {
		if width > b.width {
			wider = width
			break
		}
	}
	old, first := b.all, b.first
	b.first = floor(first*b.width, wider)
	b.all = make([]Bin, floor((first+int64(len(old))-1)*b.width, wider)-b.first+1, binsMax)
	for i := range old {
		to := &b.all[floor((first+int64(i))*b.width, wider)-b.first]
		to.Events += old[i].Events
		to.Old += old[i].Old
		to.New += old[i].New
	}
	b.width = wider
}

// list is the bins with their times.
func (b *bins) list() []Bin {
	list := make([]Bin, len(b.all))
	for i, bin := range b.all {
		bin.From = time.Unix((b.first+int64(i))*b.width, 0).UTC()
		list[i] = bin
	}
	return list
}

func floor(n, by int64) int64 {
	q := n / by
	if n%by < 0 {
		q--
	}
	return q
}
