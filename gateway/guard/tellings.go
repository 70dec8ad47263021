package guard

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/detectors"
	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

// Templates of what rules have people told.
const (
	ruleMatched     = "rule.matched"     // to operators and owners of rules
	activityNoticed = "activity.noticed" // to owners of accounts, who are not told which rule
)

const (
	// toldMost is how much one rule has told in an hour of the clock, by each node.
	toldMost = 60
	// toldKept bounds what a node remembers of what it told; the outbox remembers all.
	toldKept = 4096
)

// tellings are what rules had told lately.
type tellings struct {
	mu    sync.Mutex
	until map[string]time.Time // by key of the notice: told, or being told, until then
	hour  time.Time
	count map[rules.ID]int // in that hour
}

// take reports whether what has a key is to be told now. full is true where the rule has
// told enough.
func (t *tellings) take(rule rules.ID, key string, until, now time.Time) (first, full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.until[key].After(now) {
		return false, false
	}
	if hour := now.Truncate(time.Hour); !hour.Equal(t.hour) || t.count == nil {
		t.hour, t.count = hour, make(map[rules.ID]int)
	}
	if t.count[rule] >= toldMost {
		return false, true
	}
	if len(t.until) >= toldKept || t.until == nil {
		t.until = make(map[string]time.Time)
	}
	t.until[key] = until
	t.count[rule]++
	return true, false
}

// tell has people told of a finding as its rule says: once for each value of the key in a
// window of its length, all nodes together. What cannot be kept is logged.
func (c *Core) tell(ctx context.Context, f rules.Finding, n rules.Notify, e detectors.Event, now time.Time) {
	value := policies.KeyOf(n.Key, e)
	if value == "" {
		return // nothing that others share
	}
	window := e.Time.UTC().Truncate(n.Every)
	of := c.Digest("notice", n.Key+"\x00"+value)
	key := string(f.Rule) + "/" + n.To + "/" + base64.RawURLEncoding.EncodeToString(of[:]) + "/" + window.Format(time.RFC3339)
	first, full := c.told.take(f.Rule, key, window.Add(n.Every), now)
	switch {
	case full:
		c.complain("a rule has more to tell than in an hour anybody is told", "rule", string(f.Rule))
		return
	case !first:
		return
	}
	if err := c.tellOf(ctx, f, n, e, key, value, now); err != nil {
		c.complain("what a rule has told is not kept", "rule", string(f.Rule), "error", err)
	}
}

func (c *Core) tellOf(ctx context.Context, f rules.Finding, n rules.Notify, e detectors.Event, key, value string, now time.Time) error {
	if n.To == "account" {
		if e.Account == "" {
			return nil
		}
		return c.mailOwner(ctx, string(e.Account), activityNoticed, key, map[string]string{"country": e.Source.Country, "at": moment(e.Time)})
	}
	values := map[string]string{
		"rule": string(f.Rule), "reason": f.Why, "scope": policies.KeyName(n.Key), "value": value, "at": moment(e.Time), "mode": string(rules.Enforce),
	}
	var failed error
	for _, s := range c.addressees(n.To, f.Rule) {
		notice := policies.Notice{Channel: cmp.Or(s.Channel, webhookChannel), To: s.To, Template: ruleMatched, Values: s.values(values)}
		to := c.Digest("address", notice.Channel+"\x00"+s.To)
		notice.Key = ruleMatched + "/" + key + "/" + base64.RawURLEncoding.EncodeToString(to[:])
		_, err := c.Outbox.Put(ctx, notice, now)
		failed = errors.Join(failed, err)
	}
	return failed
}

// addressees are who is told as operators, or as the owner of a rule. That is a receiver of
// the owner's name, or the owner's own address; an owner who is neither is among the
// operators.
func (c *Core) addressees(to string, rule rules.ID) []Subscription {
	var operators []Subscription
	if all := c.subscriptions.Load(); all != nil {
		operators = slices.DeleteFunc(slices.Clone(*all), func(s Subscription) bool { return !s.wants(ruleMatched) })
	}
	if to != "owner" {
		return operators
	}
	owner := ""
	for _, r := range c.Rules.Load().Rules() {
		if r.ID == rule {
			owner = r.Owner
		}
	}
	if i := slices.IndexFunc(operators, func(s Subscription) bool { return s.To == owner }); i >= 0 {
		return operators[i : i+1]
	}
	if strings.Contains(owner, "@") && c.Mailing.Load() {
		return []Subscription{{Channel: mailChannel, To: owner}}
	}
	return operators
}

// tagged counts on the record what a rule has tagged. The finding itself carries the tag.
func (c *Core) tagged(f rules.Finding, tag string, e detectors.Event) {
	key := string(e.Account)
	if key == "" && e.Source.Network.IsValid() {
		key = e.Source.Network.String()
	}
	c.Record.Count(record.Denial{Time: f.Time, Kind: tagPrefix + tag, Reason: string(policies.ReasonRule), Key: cmp.Or(key, e.Actor)})
}
