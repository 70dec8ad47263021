package simulate_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/detectors/simulate"
)

// knock is what somebody does to a baseline: at seconds from the start, from an
// address, as somebody, right or wrong.
type knock struct {
	at    float64
	from  byte
	name  uint32
	right bool
}

func defended(t *testing.T, name string) simulate.Defense {
	t.Helper()
	all := simulate.Baselines()
	i := slices.IndexFunc(all, func(b simulate.Baseline) bool { return b.Name == name })
	if i < 0 {
		t.Fatalf("there is no baseline %s", name)
	}
	return all[i].New()
}

// met is what a defense does with a knock.
func met(d simulate.Defense, k knock) simulate.Action {
	e := detectors.Event{
		Kind: detectors.Login, Outcome: detectors.Unknown,
		Time:   time.Date(2027, 3, 1, 9, 0, 0, 0, time.UTC).Add(time.Duration(k.at * float64(time.Second))),
		Source: detectors.Source{Address: netip.AddrFrom4([4]byte{203, 0, 113, k.from})},
	}
	binary.BigEndian.PutUint32(e.Name.Digest[:], k.name+1)
	a := d.Before(&e)
	e.Outcome = detectors.Failure
	switch {
	case a == simulate.Refuse:
		e.Outcome = detectors.Refused
	case k.right:
		e.Outcome = detectors.Success
	}
	d.After(&e)
	return a
}

func TestBaselines(t *testing.T) {
	// often is n knocks with as many seconds between them.
	often := func(n int, from, every float64, k knock) (all []knock) {
		for i := range n {
			k.at = from + every*float64(i)
			all = append(all, k)
		}
		return all
	}
	others := func(all []knock) []knock {
		for i := range all {
			all[i].name = uint32(i)
		}
		return all
	}
	for _, tt := range []struct {
		name, defense string
		knocks        []knock
		refused       []int // of knocks, from 0
	}{
		{"nobody is turned away", "none", others(often(500, 0, 0.1, knock{from: 1})), nil},
		{"the sixth failure in a burst bans", "window-5-10s", others(often(8, 0, 0.1, knock{from: 1})), []int{6, 7}},
		{"a failure in 10 s never does", "window-5-10s", others(often(100, 0, 10, knock{from: 1})), nil},
		{"good log-ins are no drops", "window-5-10s", often(100, 0, 0.1, knock{from: 1, right: true}), nil},
		{"a ban is of everybody there, for 4 h, and nowhere else", "window-5-10s", slices.Concat(
			often(6, 0, 0.1, knock{from: 1}), []knock{{at: 60, from: 1, name: 9, right: true}, {at: 60, from: 2}, {at: 4*3600 + 0.4, from: 1}, {at: 4*3600 + 0.6, from: 1}}),
			[]int{6, 8}},
		{"after a ban it takes six again", "window-5-10s", slices.Concat(often(6, 0, 0.1, knock{from: 1}), often(7, 5*3600, 0.1, knock{from: 1})), []int{12}},
		{"the twenty-first request is refused, right or wrong", "rate-20-10m", often(22, 0, 1, knock{from: 1, right: true}), []int{20, 21}},
		{"one in 30 s never is", "rate-20-10m", often(100, 0, 30, knock{from: 1}), nil},
		{"refused ones do not count, and 10 minutes later there is room for one", "rate-20-10m", slices.Concat(
			often(30, 0, 1, knock{from: 1}), []knock{{at: 599.9, from: 1}, {at: 600, from: 1}, {at: 600.5, from: 1}, {at: 601, from: 1}}),
			[]int{20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32}},
		{"the limit is of an address", "rate-20-10m", slices.Concat(often(20, 0, 1, knock{from: 1}), often(20, 0, 1, knock{from: 2})), nil},
		{"ten failures lock the account, for its owner too, for 30 minutes", "lockout-10", slices.Concat(
			often(10, 0, 60, knock{from: 1, name: 1}), []knock{{at: 600, from: 2, name: 1, right: true}, {at: 600, from: 1, name: 2}, {at: 540 + 1799, from: 2, name: 1, right: true}, {at: 540 + 1800, from: 2, name: 1, right: true}}),
			[]int{10, 12}},
		{"a success ends the row", "lockout-10", slices.Concat(
			often(9, 0, 60, knock{name: 1}), []knock{{at: 540, name: 1, right: true}}, often(9, 600, 60, knock{name: 1}), []knock{{at: 1200, name: 1, right: true}}), nil},
		{"wherever the failures come from", "lockout-10", func() []knock {
			all := often(12, 0, 3600, knock{name: 1})
			for i := range all {
				all[i].from, all[i].at = byte(i), float64(i)*3600
			}
			all[10].at = all[9].at + 60
			return all
		}(), []int{10}},
		{"a row that stood still for a day is over", "lockout-10", slices.Concat(often(9, 0, 60, knock{name: 1}), often(9, 25*3600, 60, knock{name: 1})), nil},
	} {
		t.Run(tt.defense+": "+tt.name, func(t *testing.T) {
			d := defended(t, tt.defense)
			var refused []int
			for i, k := range tt.knocks {
				switch a := met(d, k); a {
				case simulate.Allow:
				case simulate.Refuse:
					refused = append(refused, i)
				default:
					t.Fatalf("knock %d: %s, and a baseline allows or refuses", i, a)
				}
			}
			if d := cmp.Diff(tt.refused, refused); d != "" {
				t.Errorf("refused (-want +got):\n%s", d)
			}
		})
	}
}

// What baselines remember ends, whoever comes by: a month of strangers leaves no more
// than its last days.
func TestBaselinesForget(t *testing.T) {
	for _, b := range simulate.Baselines() {
		d := b.New()
		most := 0
		for i := range 30 * 24 * 60 {
			e := detectors.Event{
				Kind: detectors.Login, Outcome: detectors.Unknown, Time: time.Date(2027, 3, 1, 0, i, 0, 0, time.UTC),
				Source: detectors.Source{Address: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
			}
			binary.BigEndian.PutUint32(e.Name.Digest[:], uint32(i)+1)
			d.Before(&e)
			e.Outcome = detectors.Failure
			d.After(&e)
			most = max(most, simulate.Remembered(d))
		}
		if most > 2*24*60 || b.Name != "none" && most == 0 {
			t.Errorf("%s: %d remembered of a month with one a minute, want at most those of two days", b.Name, most)
		}
		t.Logf("%s: at most %d", b.Name, most)
	}
}

func TestBaselineNames(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range simulate.Baselines() {
		if seen[b.Name] || b.Name == "" || b.Title == "" {
			t.Errorf("%q (%q): want a name of its own and a title", b.Name, b.Title)
		}
		seen[b.Name] = true
		if on := b.New().Alarms(time.Now()); len(on) > 0 {
			t.Errorf("%s is alarmed: %v", b.Name, on)
		}
	}
}
