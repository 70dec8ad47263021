package detectors

import (
	"encoding/binary"
	"time"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// passes are the accounts that succeeded within a quarter of an hour: 262,144 of them in
// 1 MiB. Those whose hashes begin alike share a line of 16, a cache line, in which the one
// that succeeded first makes room. So an account may count twice when many succeed, and two
// of a million are taken for one; neither matters where many are counted. To have one
// counted again at will takes 17 whose hashes begin alike in 14 bits.
//
// An entry is 20 bits of hash and 12 of minutes, which wrap after 68 hours. Zero is none.
type passes [1 << passLines][passWays]uint32

const (
	passLines   = 14 // bits
	passWays    = 16
	passTag     = 20 // bits
	passMinutes = 15
	passLate    = 10 // minutes that an event may be late
	passWrap    = 1<<(32-passTag) - 1
)

func (p *passes) line(hash uint64) *[passWays]uint32 { return &p[hash>>(64-passLines)] }

// first reports whether an account did not succeed in the quarter of an hour before, and
// remembers that it does now.
func (p *passes) first(hash uint64, now time.Time) bool {
	minute := uint32(now.Unix()/60) & passWrap
	tag := uint32(hash>>(64-passLines-passTag)) << (32 - passTag)
	line := p.line(hash)
	oldest, most := 0, uint32(0)
	for i, e := range line {
		age := (minute - e) & passWrap
		switch {
		case e == 0:
			age = passWrap
		case age > passWrap-passLate:
			age = 0
		}
		if e != 0 && e&^passWrap == tag && age < passMinutes {
			return false
		}
		if age > most {
			oldest, most = i, age
		}
	}
	line[oldest] = tag | minute
	return true
}

// readBucket has the line of a hash near; see near.
func (p *passes) readBucket(hash uint64) uint64 { return uint64(p.line(hash)[0]) }

func (*passes) readSlot(uint64) uint64 { return 0 }

func (p *passes) append(b []byte) []byte {
	for i := range p {
		for _, e := range p[i] {
			b = binary.BigEndian.AppendUint32(b, e)
		}
	}
	return b
}

func (p *passes) readFrom(c *snapshot.Cursor) {
	for i := range p {
		for k := range p[i] {
			p[i][k] = c.Uint32()
		}
	}
}
