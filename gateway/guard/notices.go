package guard

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/kidoban/kidoban/policies"
)

// Subscription is a receiver that is told of decisions, of rules that fall, of incidents that
// rules propose, and of what rules have told.
type Subscription struct {
	Channel  string   // empty: webhook
	To       string   // its name there
	Types    []string // of [NoticeTypes]; empty: all
	Language string   // what it is told in, where words are written; empty: the channel's default
	TimeZone string   // of the times it is told; IANA, empty: UTC
}

// webhookChannel is the channel of notices to subscriptions that name none.
const webhookChannel = "webhook"

// NoticeTypes are the types of notices that there are.
func NoticeTypes() []string {
	var all []string
	for _, change := range []policies.Change{policies.Registered, policies.Extended, policies.Lifted, policies.Expired} {
		all = append(all, noticeType(change))
	}
	return append(all, ruleMatched, noticeFell, noticeIncident)
}

// wants reports whether s is to be told of a type.
func (s *Subscription) wants(kind string) bool {
	return len(s.Types) == 0 || slices.Contains(s.Types, kind)
}

// values are those of a notice to s.
func (s *Subscription) values(of map[string]string) map[string]string {
	values := map[string]string{}
	maps.Copy(values, of)
	if s.Language != "" {
		values["language"] = s.Language
	}
	if s.TimeZone != "" {
		values["time_zone"] = s.TimeZone
	}
	return values
}

// noticeFell is that a rule spent its budget.
const noticeFell = "rule.fell"

func noticeType(change policies.Change) string { return "decision." + string(change) }

// Subscribe replaces who is told from now on.
func (c *Core) Subscribe(all []Subscription) { c.subscriptions.Store(&all) }

// announce implements [policies.Announce].
func (c *Core) announce(change policies.Change, d policies.Decision) []policies.Notice {
	kind := noticeType(change)
	var notices []policies.Notice
	c.eachSubscription(kind, func(s Subscription, channel string, values map[string]string) {
		maps.Copy(values, noticeValues(d))
		notices = append(notices, policies.Notice{Channel: channel, To: s.To, Template: kind, Values: values})
	})
	return notices
}

// eachSubscription calls each with whoever wants notices of a type, and with the values
// that say how they want them.
func (c *Core) eachSubscription(kind string, each func(s Subscription, channel string, values map[string]string)) {
	all := c.subscriptions.Load()
	if all == nil {
		return
	}
	for _, s := range *all {
		if !s.wants(kind) {
			continue
		}
		each(s, cmp.Or(s.Channel, webhookChannel), s.values(nil))
	}
}

// noticeValues is what is told of a decision. What is empty is left out.
func noticeValues(d policies.Decision) map[string]string {
	values := map[string]string{
		"decision": d.ID, "scope": string(d.Scope), "value": d.Value, "action": d.Action.String(), "mode": string(d.Mode),
		"origin": string(d.Origin), "by": d.By, "rule": string(d.Rule), "reason": d.Reason, "incident": d.Incident,
		"until": moment(d.Until), "lifted": moment(d.Lifted), "lifted_by": d.LiftedBy,
	}
	for name, value := range values {
		if value == "" {
			delete(values, name)
		}
	}
	return values
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
