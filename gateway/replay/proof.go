package replay

import (
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

const (
	// proofWithin is how long after a hit its person may prove to be one.
	proofWithin = 7 * 24 * time.Hour
	// sampleMax is how many of those that a rule hit are watched.
	sampleMax = 2048
)

// Estimate is how many of those that were hit later proved benign.
//
// Those are counted, not hits: an account, or else a typed name, with the device it
// was tried from, or else the network. One proves benign when the account within 7
// days logs in from that device, or that network, or passes a second factor there,
// and nothing else speaks against it: no other rule of OLD hits that log-in, and no
// detector flags its network, client or name. A device that the account has known for
// a day needs nothing else. Who is hit while logging in from such a device is benign.
//
// So it is too low where people gave up and did not come back, and too high where an attacker shares a network with his victim and the victim came.
type Estimate struct {
	Of     uint64  `json:"of"`     // those that were watched; all of them up to 2,048, else a sample
	Benign uint64  `json:"benign"` // proved so
	Share  float64 `json:"share"`  // of these, 0 to 1; 0 where none was watched
	Low    float64 `json:"low"`    // ends of the 95% interval (Wilson 1927)
	High   float64 `json:"high"`
	// Open had less than 7 days left in what was recorded, and did not prove benign.
	Open uint64 `json:"open"`
}

// sample is those that a rule hit: all of them, or beyond 2,048 those whose hash ends
// in so many zeros (Wegman's adaptive sampling).
type sample struct {
	all   map[uint64]watched // by hash of who
	level int                // how many zeros
}

type watched struct {
	last   time.Time // when it was hit last
	benign bool
}

// hit notes that who was hit by e.
func (s *sample) hit(who uint64, e *detectors.Event) {
	if who&(1<<s.level-1) != 0 {
		return
	}
	if s.all == nil {
		s.all = make(map[uint64]watched)
	}
	w := s.all[who]
	w.last = e.Time
	w.benign = w.benign || e.Outcome == detectors.Success && e.Device.State == detectors.Trusted
	s.all[who] = w
	for len(s.all) > sampleMax {
		s.level++
		for who := range s.all {
			if who&(1<<s.level-1) != 0 {
				delete(s.all, who)
			}
		}
	}
}

// prove notes that who was a person at now.
func (s *sample) prove(who uint64, now time.Time) {
	if w, ok := s.all[who]; ok && !w.benign && now.Sub(w.last) <= proofWithin {
		w.benign = true
		s.all[who] = w
	}
}

// estimate is what is known when the recorded time ends.
func (s *sample) estimate(end time.Time) Estimate {
	e := Estimate{Of: uint64(len(s.all))}
	for _, w := range s.all {
		switch {
		case w.benign:
			e.Benign++
		case end.Sub(w.last) < proofWithin:
			e.Open++
		}
	}
	if e.Of > 0 {
		e.Share = float64(e.Benign) / float64(e.Of)
	}
	e.Low, e.High = rules.Wilson(int(e.Benign), int(e.Of))
	return e
}

// whoOf is who was hit by e; 0: not known.
func whoOf(e *detectors.Event) uint64 {
	var who uint64
	switch {
	case e.Account != "":
		who = accountHash(e)
	case !e.Name.Digest.IsZero():
		who = digestHash(e.Name.Digest)
	default:
		return 0
	}
	switch {
	case e.Device.ID != "":
		return join(who, deviceHash(e))
	case e.Source.Network.IsValid():
		return join(who, networkHash(e))
	}
	return 0
}

// proof is whom an event proves to be a person.
type proof struct {
	who     [4]uint64
	n       int
	devices int  // of these, by the device, which come first
	trusted bool // the account has known the device for a day
	flagged bool // by a detector
}

// proofOf is what e, with the signals that were assessed of it, proves. by is nil
// where it proves nothing.
func proofOf(e *detectors.Event, signals []detectors.Signal) (p proof, ok bool) {
	switch e.Kind {
	case detectors.Login, detectors.Door:
		ok = e.Outcome == detectors.Success && !e.Unproven
	case detectors.Factor:
		ok = e.Outcome == detectors.Success
	}
	if !ok {
		return p, false
	}
	var names [2]uint64
	n := 0
	if e.Account != "" {
		names[n] = accountHash(e)
		n++
	}
	if !e.Name.Digest.IsZero() {
		names[n] = digestHash(e.Name.Digest)
		n++
	}
	if e.Device.ID != "" {
		d := deviceHash(e)
		for _, name := range names[:n] {
			p.who[p.n] = join(name, d)
			p.n++
		}
		p.devices = p.n
		p.trusted = e.Device.State == detectors.Trusted
	}
	if e.Source.Network.IsValid() {
		d := networkHash(e)
		for _, name := range names[:n] {
			p.who[p.n] = join(name, d)
			p.n++
		}
	}
	p.flagged = flagged(signals)
	return p, p.n > 0
}

// in notes the proof in s. clean: no other rule hit what proves.
func (p *proof) in(s *sample, now time.Time, clean bool) {
	if len(s.all) == 0 {
		return
	}
	n := p.n
	if p.flagged || !clean {
		if n = 0; p.trusted {
			n = p.devices
		}
	}
	for _, who := range p.who[:n] {
		s.prove(who, now)
	}
}

// flagged reports whether a detector says of network, client or name that they attack.
func flagged(signals []detectors.Signal) bool {
	for i := range signals {
		if signals[i].Value < 1 {
			continue
		}
		switch signals[i].Name {
		case "source.flagged", "prefix.flagged", "client.flagged", "source.client_flagged", "source.decoy", "client.decoy", "name.decoy":
			return true
		}
	}
	return false
}

func accountHash(e *detectors.Event) uint64 { return hash64(e.Account) }
func deviceHash(e *detectors.Event) uint64  { return spread(hash64(e.Device.ID) + 1) }

func networkHash(e *detectors.Event) uint64 {
	a := e.Source.Network.Addr().As16()
	return spread(hash64(a[:]) + uint64(e.Source.Network.Bits()))
}

// join is never 0, which means nobody.
func join(who, where uint64) uint64 { return spread(who*31+where) | 1<<63 }
