package replay

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// standingMax bounds the lasting decisions that are remembered; when there are more,
// those that end first go.
const standingMax = 1 << 18

// answers is how people would be answered by rules: the strictest of what they say
// to the attempt and of the lasting decisions that they made. As with those of package
// policies, what rules decided of networks, clients and accounts is not about a device
// that the account knows.
type answers struct {
	standing map[subject]*[rules.Deceive + 1]int64 // when each action ends, in nanoseconds since 1970
	swept    time.Time
}

type subject struct {
	scope policies.Scope
	value string
}

// register takes in what found asks to last.
func (a *answers) register(found []rules.Finding, e *detectors.Event) {
	for i := range found {
		if found[i].Mode != rules.Enforce {
			continue
		}
		for _, d := range policies.DecisionsOf(found[i], *e) {
			if d.Mode != rules.Enforce {
				continue
			}
			if a.standing == nil {
				a.standing = make(map[subject]*[rules.Deceive + 1]int64)
			}
			s := subject{d.Scope, d.Value}
			ends := a.standing[s]
			if ends == nil {
				a.makeRoom(e.Time)
				ends = new([rules.Deceive + 1]int64)
				a.standing[s] = ends
			}
			ends[d.Action] = max(ends[d.Action], d.Until.UnixNano())
		}
	}
}

// makeRoom forgets what is over, and if that does not suffice what ends in the next
// half hours.
func (a *answers) makeRoom(now time.Time) {
	full := len(a.standing) >= standingMax
	if !full && now.Sub(a.swept) < time.Minute {
		return
	}
	a.swept = now
	for until := now; ; until = until.Add(30 * time.Minute) {
		for s, ends := range a.standing {
			last := int64(0)
			for _, end := range ends {
				last = max(last, end)
			}
			if last <= until.UnixNano() {
				delete(a.standing, s)
			}
		}
		if len(a.standing) < standingMax {
			return
		}
	}
}

// to is the answer to e at a stage, which found is about. Of decisions only refusals
// count where e is no log-in.
func (a *answers) to(stage rules.Stage, found []rules.Finding, e *detectors.Event, signals []detectors.Signal) rules.Action {
	enforced, _ := policies.AnswerOf(found, signals)
	action := enforced.Action
	if len(a.standing) == 0 {
		return action
	}
	now, least := e.Time.UnixNano(), rules.Delay
	if stage != rules.LoginBefore && stage != rules.LoginAfter {
		least = rules.Refuse
	}
	match := func(scope policies.Scope, value string) {
		ends := a.standing[subject{scope, value}]
		if value == "" || ends == nil {
			return
		}
		for strict := rules.Deceive; strict > action && strict >= least; strict-- {
			if ends[strict] > now {
				action = strict
				return
			}
		}
	}
	match(policies.ScopeDevice, e.Device.ID)
	match(policies.ScopeSession, e.Session)
	if e.Device.Known() {
		return action
	}
	match(policies.ScopeAccount, string(e.Account))
	match(policies.ScopeFingerprint, e.Fingerprint)
	match(policies.ScopeCountry, e.Source.Country)
	var room [64]byte
	if e.Source.Network.IsValid() {
		match(policies.ScopeNetwork, string(e.Source.Network.AppendTo(room[:0])))
	}
	if e.Source.Address.IsValid() {
		match(policies.ScopeAddress, string(e.Source.Address.AppendTo(room[:0])))
	}
	if e.Source.ASN != 0 {
		match(policies.ScopeASN, strconv.FormatUint(uint64(e.Source.ASN), 10))
	}
	return action
}

// networkOf is what counters key on.
func networkOf(s detectors.Source) netip.Prefix {
	if s.Network.IsValid() || !s.Address.IsValid() {
		return s.Network
	}
	return detectors.CountingNetwork(s.Address)
}
