package detectors

import (
	"encoding/binary"
	"math"
	"math/bits"
	"time"

	"github.com/kidoban/kidoban/detectors/snapshot"
)

// HistoriesConfig sets up [Histories]. The zero value is a good one.
type HistoriesConfig struct {
	Accounts int // kept; 0: 1,048,576
	Networks int // kept; 0: 1,048,576
}

// Histories knows what is usual: from where and with what each account logs in, and
// how many accounts log in from each network.
//
// It sees log-ins that were completed, and nothing else: what fails, and what was
// withheld, teaches it nothing, so that an attack does not become usual.
//
// It keeps per account the last 5 networks, 3 operators and 3 clients, as hashes of
// 32 bits with the day they were used, and forgets what was not used for 180 days;
// about 100 bytes. Per network it keeps which accounts logged in this week and the
// week before: two of them as they are, more in two bitmaps of 512 bits, from which
// their number is estimated (Whang et al., "A Linear-Time Probabilistic Counting
// Algorithm", 1990; to within a tenth up to 1,000, where it stops). Those used longest
// ago go first when a table is full.
//
// As an [Informer] it fills Event.History, and says nothing besides. A stranger is who
// neither a known device nor a known network speaks for. An office and a home line
// differ by their capacity, without anybody listing them.
//
// It accepts this false positive: a person on a new device in a new place is a
// stranger, each time.
type Histories struct {
	config   HistoriesConfig
	accounts *table[uint64, accountHistory]
	networks *table[sourceKey, networkHistory]
}

const (
	historyNetworks  = 5
	historyOperators = 3
	historyClients   = 3
	historyDays      = 180

	capacityBits  = 512
	capacityMax   = 1000
	capacityWeek  = 7 * 24 * time.Hour
	capacityCrowd = 10 // accounts; from here on a network is an office, a campus, a carrier
)

// trace is a hash of 32 bits and the day it was seen last, in 6 bytes.
type trace struct {
	high, low uint16 // of the hash
	day       uint16
}

func newTrace(hash uint32, day uint16) trace { return trace{uint16(hash >> 16), uint16(hash), day} }

func (t trace) hash() uint32 { return uint32(t.high)<<16 | uint32(t.low) }

type accountHistory struct {
	logins    uint8
	networks  [historyNetworks]trace
	operators [historyOperators]trace
	clients   [historyClients]trace
}

type networkHistory struct {
	week   uint16    // that now is about
	few    [2]uint32 // the first accounts of it; 0: none
	fewOld [2]uint32 // of the week before
	many   *[2][capacityBits / 64]uint64
}

// NewHistories returns a detector that has seen nothing.
func NewHistories(c HistoriesConfig) *Histories {
	if c.Accounts <= 0 {
		c.Accounts = 1 << 20
	}
	if c.Networks <= 0 {
		c.Networks = defaultSources
	}
	h := &Histories{
		config: c,
		accounts: newTable[uint64](c.Accounts, historyDays*24*time.Hour,
			func(v *accountHistory) bool { return v.logins > 3 }, nil),
		networks: newTable[sourceKey](c.Networks, 2*capacityWeek,
			func(v *networkHistory) bool { return v.many != nil }, nil),
	}
	h.accounts.form = form[uint64, accountHistory]{writeAccountHistory, readAccountHistory}
	h.networks.form = form[sourceKey, networkHistory]{writeNetworkHistory, readNetworkHistory}
	return h
}

// Signals implements [Detector]. Rules name the history itself.
func (h *Histories) Signals() []Description { return nil }

// Inform implements [Informer].
func (h *Histories) Inform(e *Event) {
	e.History = History{Capacity: h.capacity(e)}
	v, _ := h.accounts.find(accountHash(e), e.Time)
	if v == nil {
		return
	}
	day := dayOf(e.Time)
	e.History.Logins = int(v.logins)
	e.History.Network = traced(v.networks[:], hash32(uint64(keyOf(e.Source))), day) && e.Source.Address.IsValid()
	e.History.Operator = e.Source.ASN != 0 && traced(v.operators[:], hash32(uint64(e.Source.ASN)), day)
	e.History.Client = e.Fingerprint != "" && traced(v.clients[:], hash32(hash64(clientSalt, e.Fingerprint)), day)
}

// Assess implements [Detector].
func (h *Histories) Assess(e Event) []Signal { return h.assess(&e) }

func (h *Histories) assess(*Event) []Signal { return nil }

// strange reports whether nothing that the gate knows speaks for e.
func strange(e *Event) bool { return !e.Device.Known() && !e.History.Network }

// proven reports whether e is a completed login, or a session that is in use. What
// became of a session is told beside its login, and proves nothing more.
func proven(e *Event) bool {
	return (e.Kind == Login || e.Kind == Door || e.Kind == Session && e.Act == "") && e.Outcome == Success && !e.Unproven
}

// Observe implements [Detector].
func (h *Histories) Observe(e Event) { h.observe(&e) }

func (h *Histories) observe(e *Event) {
	if !proven(e) {
		return
	}
	account := accountHash(e)
	v, _ := h.accounts.take(account, e.Time)
	v.logins = min(v.logins, math.MaxUint8-1) + 1
	day := dayOf(e.Time)
	if e.Source.Address.IsValid() {
		keepTrace(v.networks[:], hash32(uint64(keyOf(e.Source))), day)
	}
	if e.Source.ASN != 0 {
		keepTrace(v.operators[:], hash32(uint64(e.Source.ASN)), day)
	}
	if e.Fingerprint != "" {
		keepTrace(v.clients[:], hash32(hash64(clientSalt, e.Fingerprint)), day)
	}
	if !e.Source.Address.IsValid() {
		return
	}
	n, _ := h.networks.take(keyOf(e.Source), e.Time)
	n.turn(weekOf(e.Time))
	n.add(hash32(account))
}

// capacity is how many accounts log in from e's network.
func (h *Histories) capacity(e *Event) int {
	if !e.Source.Address.IsValid() {
		return 0
	}
	n, _ := h.networks.find(keyOf(e.Source), e.Time)
	if n == nil {
		return 0
	}
	view := *n
	if view.many != nil {
		both := *view.many
		view.many = &both
	}
	view.turn(weekOf(e.Time))
	return view.count()
}

// turn makes week the current one.
func (n *networkHistory) turn(week uint16) {
	switch gone := week - n.week; {
	case gone == 0 || gone > math.MaxUint16/2: // or an event that is late
		return
	case gone == 1:
		n.fewOld, n.few = n.few, [2]uint32{}
		if n.many != nil {
			n.many[1], n.many[0] = n.many[0], [capacityBits / 64]uint64{}
		}
	default:
		n.few, n.fewOld, n.many = [2]uint32{}, [2]uint32{}, nil
	}
	n.week = week
}

func (n *networkHistory) add(account uint32) {
	account = max(account, 1)
	if n.many == nil {
		for i, a := range n.few {
			if a == account {
				return
			}
			if a == 0 {
				n.few[i] = account
				return
			}
		}
		n.many = new([2][capacityBits / 64]uint64)
		for week, few := range [2][2]uint32{n.few, n.fewOld} {
			for _, a := range few {
				if a != 0 {
					n.many[week][a/64%(capacityBits/64)] |= 1 << (a % 64)
				}
			}
		}
	}
	n.many[0][account/64%(capacityBits/64)] |= 1 << (account % 64)
}

func (n *networkHistory) count() int {
	if n.many == nil {
		seen := 0
		for i, a := range [4]uint32{n.few[0], n.few[1], n.fewOld[0], n.fewOld[1]} {
			if a != 0 && (i < 2 || a != n.few[0] && a != n.few[1]) {
				seen++
			}
		}
		return seen
	}
	set := 0
	for i := range n.many[0] {
		set += bits.OnesCount64(n.many[0][i] | n.many[1][i])
	}
	return linearCount[set]
}

// linearCount is the number of members that leaves so many bits set.
var linearCount = func() (counts [capacityBits + 1]int) {
	for set := range counts {
		n := capacityMax
		if set < capacityBits {
			n = int(math.Round(-capacityBits * math.Log(1-float64(set)/capacityBits)))
		}
		counts[set] = min(n, capacityMax)
	}
	return counts
}()

func dayOf(t time.Time) uint16  { return uint16(t.Unix() / (24 * 60 * 60)) }
func weekOf(t time.Time) uint16 { return uint16(t.Unix() / int64(capacityWeek/time.Second)) }

func hash32(h uint64) uint32 { return uint32(mix(h) >> 32) }

// traced reports whether hash was seen in the last 180 days.
func traced(traces []trace, hash uint32, day uint16) bool {
	for _, t := range traces {
		if t.hash() == hash && t.day != 0 && int16(day-t.day) < historyDays {
			return true
		}
	}
	return false
}

// keepTrace notes hash in place of itself, or of what was seen longest ago.
func keepTrace(traces []trace, hash uint32, day uint16) {
	oldest := 0
	for i, t := range traces {
		if t.day != 0 && t.hash() == hash {
			oldest = i
			break
		}
		if t.day == 0 || traces[oldest].day != 0 && int16(t.day-traces[oldest].day) < 0 {
			if traces[oldest].day != 0 {
				oldest = i
			}
		}
	}
	if traces[oldest].hash() == hash && traces[oldest].day != 0 && int16(day-traces[oldest].day) < 0 {
		return // an event that is late
	}
	traces[oldest] = newTrace(hash, day)
}

func (h *Histories) form() string     { return "histories/2" }
func (h *Histories) tables() []pieces { return []pieces{h.accounts, h.networks} }
func (h *Histories) empty() stored    { return NewHistories(h.config) }

func writeAccountHistory(b []byte, k uint64, v *accountHistory) []byte {
	b = append(binary.BigEndian.AppendUint64(b, k), v.logins)
	for _, part := range [][]trace{v.networks[:], v.operators[:], v.clients[:]} {
		for _, t := range part {
			b = binary.BigEndian.AppendUint32(b, t.hash())
			b = binary.BigEndian.AppendUint16(b, t.day)
		}
	}
	return b
}

func readAccountHistory(c *snapshot.Cursor, k *uint64, v *accountHistory) {
	*k, v.logins = c.Uint64(), c.Byte()
	for _, part := range [][]trace{v.networks[:], v.operators[:], v.clients[:]} {
		for i := range part {
			part[i] = newTrace(c.Uint32(), c.Uint16())
		}
	}
}

func writeNetworkHistory(b []byte, k sourceKey, v *networkHistory) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(k))
	b = binary.BigEndian.AppendUint16(b, v.week)
	for _, a := range [4]uint32{v.few[0], v.few[1], v.fewOld[0], v.fewOld[1]} {
		b = binary.BigEndian.AppendUint32(b, a)
	}
	if v.many == nil {
		return append(b, 0)
	}
	b = append(b, 1)
	for _, week := range v.many {
		for _, word := range week {
			b = binary.BigEndian.AppendUint64(b, word)
		}
	}
	return b
}

func readNetworkHistory(c *snapshot.Cursor, k *sourceKey, v *networkHistory) {
	*k, v.week = sourceKey(c.Uint64()), c.Uint16()
	v.few[0], v.few[1], v.fewOld[0], v.fewOld[1] = c.Uint32(), c.Uint32(), c.Uint32(), c.Uint32()
	switch c.Byte() {
	case 0:
	case 1:
		v.many = new([2][capacityBits / 64]uint64)
		for w := range v.many {
			for i := range v.many[w] {
				v.many[w][i] = c.Uint64()
			}
		}
	default:
		c.Fail()
	}
}
