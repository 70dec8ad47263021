package simulate

import (
	"math/rand/v2"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

// crowd is a [Crowd] with its people, who are some of the town's.
type crowd struct {
	Crowd
	places []place
	first  int // person
}

func newCrowd(c Crowd, w *town, number int) *crowd {
	d := &crowd{Crowd: c, first: int(spread(w.seed, uint64(900+number)) % uint64(max(1, w.People-c.People)))}
	for i := range max(1, c.Sources) {
		h := spread(w.seed, uint64(1000+number*5000+i))
		switch c.Kind {
		case "carrier":
			d.places = append(d.places, place{v4(72, h), carrierOperator + 1, "JP"})
		case "roaming":
			d.places = append(d.places, foreignAt(h))
		default:
			d.places = append(d.places, place{v4(62, h), 65550, "JP"})
		}
	}
	return d
}

// history is what the gate learned of the crowd before.
func (c *crowd) history(w *town, learn func(*detectors.Event)) {
	if c.Kind != "office" && c.Kind != "carrier" {
		if c.Kind == "newcomers" {
			for i := range c.People {
				w.seen[(c.first+i)/64] &^= 1 << ((c.first + i) % 64)
			}
		}
		return
	}
	r := rand.New(rand.NewPCG(w.seed, 4))
	for i := range c.People {
		who := c.first + i
		w.know(who)
		for k := range 1 + min(1, len(c.places)-1) {
			e := detectors.Event{
				Time: w.start.AddDate(0, 0, -1-k).Add(-time.Duration(r.IntN(7200)) * time.Second), Kind: detectors.Session, Outcome: detectors.Success,
				Account: w.account(who), AccountSince: w.since(who), Organization: w.organization(who), Name: detectors.Name{Digest: w.name(who)},
				Client: programs[w.program(who)].client, Device: detectors.Device{ID: w.device(who), State: detectors.Trusted}, Offset: ahead,
				Source: c.places[r.IntN(len(c.places))].source(),
			}
			e.Fingerprint = e.Client.Fingerprint()
			learn(&e)
		}
	}
}

// plan makes the first attempts of the crowd.
func (c *crowd) plan(w *town, from time.Time, r *rand.Rand) (tries []try) {
	begin, length := from.Add(time.Duration(c.From)), time.Duration(c.Length)
	some := func() time.Time { return begin.Add(time.Duration(r.Float64() * float64(length))) }
	base := func(i int) try {
		who := c.first + i
		return try{who: who, name: w.name(who), client: programs[w.program(who)].client, device: r.Float64() < c.Device, crowd: true, weight: 1,
			where: c.places[r.IntN(len(c.places))], password: w.password(who), right: true}
	}
	wrong := func(t *try) {
		if r.Float64() < c.Mistype {
			t.password, t.right, t.why = mistyped(r, t.password), false, typo
		}
	}
	switch c.Kind {
	case "office", "newcomers", "carrier":
		for i := range c.People {
			t := base(i)
			t.at, t.carrier = some(), c.Kind == "carrier"
			if c.Kind == "newcomers" {
				t.device = false
			}
			wrong(&t)
			tries = append(tries, t)
		}
	case "loops":
		for i := range c.People {
			t := base(i)
			t.where, t.why, t.right, t.device = w.home(t.who), stale, false, false
			t.password = w.other(t.who)
			t.at = some()
			tries = append(tries, t)
		}
	case "forgotten":
		for i := range c.People {
			t := base(i)
			t.where = w.home(t.who)
			at := some()
			for k := range c.Tries {
				u := t
				u.at, u.right, u.why = at.Add(time.Duration(k)*5*time.Minute/time.Duration(max(1, c.Tries))), false, last
				u.password = mistyped(r, t.password)
				if c.Variants > 0 {
					u.password = t.password + letters[k%c.Variants:][:1]
				}
				tries = append(tries, u)
			}
			t.at = at.Add(9 * time.Minute) // after the reset
			tries = append(tries, t)
		}
	case "storm":
		for range int(c.Rate * length.Seconds()) {
			tries = append(tries, try{at: some(), kind: storming, where: c.places[0], client: tools[2], who: -1})
		}
	case "roaming":
		for week := range int(length/(7*24*time.Hour)) + 1 {
			for i := range c.People {
				if r.Float64() >= 0.1 {
					continue
				}
				where := foreignAt(r.Uint64())
				for range 10 {
					t := base(i)
					t.where, t.abroad = where, true
					t.at = begin.Add(time.Duration((float64(week) + r.Float64()) * 7 * 24 * float64(time.Hour)))
					if t.at.After(begin.Add(length)) {
						continue
					}
					wrong(&t)
					tries = append(tries, t)
				}
			}
		}
	}
	return tries
}
