package policies

import (
	"slices"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/rules"
)

// Means says which actions can be done about what is at hand. The zero value is where
// nothing can be answered.
type Means struct {
	Refuse   bool        // or delay
	StepUp   func() bool // nil: never
	Deceive  func() bool // whether a lie would look true; nil: never. Evidence of an attack is needed besides
	Factors  bool        // there are second factors, so that a decision to step up can be carried out
	Policies bool        // of what cannot be done, and for which a rule declares nothing, policies say what is done
}

// MeansOf are those of a recorded event at a stage, as far as it and the preset tell. Of
// what neither tells they are the best: the gate has second factors, and so has who is in;
// without a preset (b is nil) failures can be rendered, and answers to requests are
// uniform.
func MeansOf(stage rules.Stage, e *detectors.Event, b *Backend) Means {
	yes := func() bool { return true }
	in := func() bool { return e.Session != "" }
	m := Means{Refuse: true, Factors: true}
	switch {
	case e.Kind == detectors.Operator, e.Act == detectors.Ended:
		m.Refuse = false
	case stage == rules.LoginBefore, stage == rules.LoginAfter:
		m.Policies, m.StepUp = true, yes
		m.Deceive = func() bool { return b == nil || len(b.Login.Failure) > 0 }
	case stage == rules.Request:
		m.StepUp = in
		m.Deceive = func() bool { return !e.Name.Digest.IsZero() && (b == nil || b.Requests[e.Route].Uniform) }
	case stage == rules.Message:
		m.StepUp = in
	case e.Act == detectors.Begun:
		m.StepUp = yes
	}
	return m
}

func (m Means) can(a rules.Action, signals []detectors.Signal) bool {
	switch a {
	case rules.StepUp:
		return m.StepUp != nil && m.StepUp()
	case rules.Delay, rules.Refuse:
		return m.Refuse
	case rules.Deceive:
		return m.Deceive != nil && Attacked(signals) && m.Deceive()
	}
	return true
}

// instead is what to answer in the place of what cannot be: what the rule declares, or
// else a refusal. ok is false where policies have an answer of their own.
func (m Means) instead(declared *rules.Action, signals []detectors.Signal) (a rules.Action, ok bool) {
	switch {
	case declared != nil && (*declared == rules.Allow || m.can(*declared, signals)):
		return *declared, true
	case m.Policies:
		return rules.Allow, false
	case m.Refuse:
		return rules.Refuse, true
	}
	return rules.Allow, true
}

// lasts reports whether a decision of this action can be carried out.
func (m Means) lasts(a rules.Action) bool {
	switch a {
	case rules.StepUp:
		return m.Factors
	case rules.Deceive:
		return m.Deceive == nil || m.Deceive()
	}
	return true
}

// Feasible puts what a rule declares for the case in the place of actions that cannot be
// done. The finding says so, and told is; f itself is not changed.
func (m Means) Feasible(f rules.Finding, signals []detectors.Signal, told func(action, instead rules.Action)) rules.Finding {
	fellBack := func(action, instead rules.Action) {
		f.Then = slices.Clone(f.Then)
		f.Why += "; " + action.String() + " cannot be done here, " + instead.String() + " is in its place"
		told(action, instead)
	}
	for j, then := range f.Then {
		if then.Answer != rules.Allow && !m.can(then.Answer, signals) {
			instead, ok := m.instead(then.Else, signals)
			if ok && instead != then.Answer {
				fellBack(then.Answer, instead)
				f.Then[j].Answer, f.Then[j].Else = instead, nil
			}
		}
		if d := then.Decide; d != nil && d.Else != nil && !m.lasts(d.Action) {
			fellBack(d.Action, *d.Else)
			if f.Then[j].Decide = nil; *d.Else != rules.Allow {
				f.Then[j].Decide = &rules.Decide{Scope: d.Scope, Action: *d.Else, For: d.For}
			}
		}
	}
	return f
}
