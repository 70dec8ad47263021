package policies

import (
	"cmp"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// DecisionsOf is what a finding about e asks to last, ready to register. Where e
// does not tell the subject of a scope (no account yet, country unknown), nothing
// is decided: an unknown value is no value that others share.
//
// The window is aligned to a tenth of the decision's length, a minute at least, so
// that nodes which see events in slightly different order mean the same one.
func DecisionsOf(f rules.Finding, e detectors.Event) []Decision {
	var out []Decision
	for _, then := range f.Then {
		if then.Decide == nil {
			continue
		}
		scope, value := subjectOf(then.Decide.Scope, e)
		if value == "" {
			continue
		}
		mode := cmp.Or(then.Mode, f.Mode)
		if mode != rules.Enforce {
			mode = rules.Shadow // whatever else a mode says, it does not say act
		}
		out = append(out, Decision{
			Scope: scope, Value: value, Action: then.Decide.Action, Mode: mode,
			Origin: OriginRule, By: string(f.Rule), Rule: f.Rule, Finding: f.ID, Reason: shorten(f.Why, maxReason),
			Window: e.Time.UTC().Truncate(max(then.Decide.For/10, time.Minute)),
			Until:  e.Time.Add(then.Decide.For),
		})
	}
	return out
}

// AnswerOf is what findings ask for the attempt that they are about, and for nothing
// after it: the strictest of what is enforced, and of what only would be. Without
// evidence of an attack among the signals nobody is deceived, but answered as the rule
// declares for the case, or refused: whoever is who he says would believe that his
// password is wrong.
func AnswerOf(found []rules.Finding, signals []detectors.Signal) (enforced, shadow Verdict) {
	for _, f := range found {
		for _, then := range f.Then {
			if then.Answer == rules.Allow {
				continue
			}
			v := Verdict{Action: then.Answer, Reason: ReasonRule, Rule: f.Rule, Finding: f.ID}
			if v.Action == rules.Deceive && !Attacked(signals) {
				if v.Action = rules.Refuse; then.Else != nil {
					v.Action = *then.Else
				}
			}
			if v.Action == rules.Allow {
				continue
			}
			if cmp.Or(then.Mode, f.Mode) == rules.Enforce {
				enforced = enforced.Stricter(v)
			} else {
				shadow = shadow.Stricter(v)
			}
		}
	}
	return enforced, shadow
}

// evidence are the signals that are 1 for sources, clients and campaigns that attack.
var evidence = []string{"source.flagged", "source.client_flagged", "client.flagged", "prefix.flagged", "campaign.alarm", "source.decoy", "client.decoy", "name.decoy"}

// Attacked reports whether signals are evidence of an attack, without which nobody is
// deceived.
func Attacked(signals []detectors.Signal) bool {
	return slices.ContainsFunc(signals, func(s detectors.Signal) bool { return s.Value >= 1 && slices.Contains(evidence, s.Name) })
}

// subjectOf names the subject of e in a scope that a rule uses; an empty value
// when e does not tell.
func subjectOf(scope string, e detectors.Event) (Scope, string) {
	switch scope {
	case "source.address":
		if e.Source.Address.IsValid() {
			return ScopeAddress, e.Source.Address.String()
		}
		return ScopeAddress, ""
	case "source.network":
		if n := e.Source.Network; n.IsValid() {
			return ScopeNetwork, n.Masked().String()
		}
		if a := e.Source.Address; a.IsValid() {
			return ScopeNetwork, detectors.CountingNetwork(a).String()
		}
		return ScopeNetwork, ""
	case "source.asn":
		if e.Source.ASN != 0 {
			return ScopeASN, strconv.FormatUint(uint64(e.Source.ASN), 10)
		}
		return ScopeASN, ""
	case "source.country":
		return ScopeCountry, e.Source.Country
	case "account":
		return ScopeAccount, string(e.Account)
	case "session":
		return ScopeSession, e.Session
	case "device":
		return ScopeDevice, e.Device.ID
	case "fingerprint":
		return ScopeFingerprint, e.Fingerprint
	default:
		// An event carries the kind of a credential only; a decision on that would be
		// one on everybody.
		return ScopeCredential, ""
	}
}

// KeyName is what the key of a notice or an incident is called where people read it.
func KeyName(key string) string {
	if key == "actor" {
		return key
	}
	scope, _ := subjectOf(key, detectors.Event{})
	return string(scope)
}

// KeyOf is the value that e has of the key of a notice or an incident; empty: none.
func KeyOf(key string, e detectors.Event) string {
	switch key {
	case "actor":
		return e.Actor
	case "credential":
		return e.Credential
	}
	_, value := subjectOf(key, e)
	return value
}

// shorten cuts s to at most n characters.
func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	return string(r[:n-1]) + "…"
}
