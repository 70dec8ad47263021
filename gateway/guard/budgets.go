package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/kidoban/kidoban/gateway/record"
	"github.com/kidoban/kidoban/policies"
	"github.com/kidoban/kidoban/rules"
)

const (
	actSetBack = record.Acts + "rule.set_back"
	actBenign  = record.Acts + "finding.benign"

	entryFell = "rule.fell" // a budget was spent

	// agreeing is how long nodes may have different rules before it is an alarm: a new
	// file does not reach all of them at once.
	agreeing = time.Minute
	// speaking is how long what a node said of its rules holds.
	speaking = time.Minute
)

// ErrNoRule means that no rule with that id is in force.
var ErrNoRule = fmt.Errorf("no such rule: %w", policies.ErrNotFound)

// fallOf is how far a generation of a rule has fallen, as was known at the last sweep.
func (c *Core) fallOf(rule rules.ID, generation string) rules.Fall {
	if all := c.falls.Load(); all != nil {
		if x, ok := (*all)[rule]; ok && (generation == "" || x.Generation == generation) {
			return x.Level
		}
	}
	return rules.Stands
}

// Falls lists the rules in force that have fallen, by id.
func (c *Core) Falls() []policies.Fallen {
	all := c.falls.Load()
	if all == nil {
		return nil
	}
	return slices.SortedFunc(maps.Values(*all), func(a, b policies.Fallen) int { return cmp.Compare(a.Rule, b.Rule) })
}

// readFalls takes over how far the rules in force have fallen, here or on another node.
func (c *Core) readFalls(ctx context.Context) error {
	all, err := c.Findings.Falls(ctx)
	if err != nil {
		return err
	}
	set := c.Rules.Load()
	fallen := map[rules.ID]policies.Fallen{}
	for _, x := range all {
		if r, ok := set.Rule(x.Rule); ok && r.Generation == x.Generation && x.Level != rules.Stands {
			fallen[x.Rule] = x
		}
	}
	c.falls.Store(&fallen)
	return nil
}

// match is what decisions say of a subject, those of rules that have fallen as such:
// what is refused by one is stepped up, or only would be. While one that only would be
// is the strictest, weaker ones of others do not speak.
func (c *Core) match(s policies.Subject, now time.Time) (enforced, shadow policies.Decision) {
	enforced, shadow = c.Decisions.Match(s, now)
	if all := c.falls.Load(); all == nil || len(*all) == 0 {
		return enforced, shadow
	}
	if enforced.Origin == policies.OriginRule {
		fall := c.fallOf(enforced.Rule, "")
		enforced.Action = fall.Soften(enforced.Action)
		if fall == rules.Silenced {
			if enforced.Action > shadow.Action {
				shadow = enforced
			}
			enforced = policies.Decision{}
		}
	}
	return enforced, shadow
}

// judgeBudgets lets rules fall whose budgets are spent. While a campaign alarm is on
// none falls: who attacks may bring it about that the innocent are hit with him.
func (c *Core) judgeBudgets(ctx context.Context, now time.Time) {
	s := &c.findings
	s.writing.Lock()
	defer s.writing.Unlock()
	set := c.Rules.Load()
	alarm := len(c.Detectors.Alarms(now)) > 0
	for rule := range s.spent {
		r, ok := set.Rule(rule)
		if !ok || r.Budget == nil || r.Mode != rules.Enforce {
			delete(s.spent, rule)
			continue
		}
		if alarm {
			continue
		}
		x, fell, err := c.Findings.Drop(ctx, r, now, func(x policies.Fallen) []policies.Notice { return c.fallNotices(r, x) })
		if err != nil {
			c.complain("a rule's budget cannot be judged", "rule", string(rule), "error", err)
			continue
		}
		delete(s.spent, rule)
		if fell {
			c.fell(ctx, r, x)
		}
	}
	if err := c.readFalls(ctx); err != nil {
		c.complain("how far rules fell", "error", err)
	}
}

// fell says that a rule has fallen.
func (c *Core) fell(ctx context.Context, r rules.Rule, x policies.Fallen) {
	c.Log.Warn("a rule spent its budget of false positives, and falls", "rule", string(r.ID), "owner", r.Owner, "generation", r.Generation, "to", x.Level.String(),
		"hits", x.Judgement.Hits, "benign", x.Judgement.Benign, "benign_percent_at_least", x.Judgement.Least, "budget_percent", r.Budget.FalsePositives)
	if _, err := c.Record.Append(ctx, record.Draft{Time: c.Now(), Kind: entryFell, Body: fallValues(r, x)}); err != nil {
		c.complain("that a rule fell is not on record", "rule", string(r.ID), "error", err)
	}
}

// fallNotices tell subscribers that a rule fell, once a term.
func (c *Core) fallNotices(r rules.Rule, x policies.Fallen) (notices []policies.Notice) {
	c.eachSubscription(noticeFell, func(s Subscription, channel string, values map[string]string) {
		maps.Copy(values, fallValues(r, x))
		notices = append(notices, policies.Notice{
			Key: policies.FallNoticeKey(x, channel, s.To), Channel: channel, To: s.To, Template: noticeFell, Values: values,
		})
	})
	return notices
}

func fallValues(r rules.Rule, x policies.Fallen) map[string]string {
	return map[string]string{
		"rule": string(r.ID), "owner": r.Owner, "generation": r.Generation, "action": x.Level.String(),
		"count": strconv.Itoa(x.Judgement.Hits), "benign": strconv.Itoa(x.Judgement.Benign),
		"reason": fmt.Sprintf("%d of %d hits proved benign, which is %.3g%% at least; the budget is %g%% over %v", x.Judgement.Benign, x.Judgement.Hits, x.Judgement.Least,
			r.Budget.FalsePositives, r.Budget.Over),
	}
}

// Standing is how a rule stands now.
func (c *Core) Standing(ctx context.Context, id rules.ID) (policies.Standing, error) {
	r, ok := c.Rules.Load().Rule(id)
	if !ok {
		return policies.Standing{}, ErrNoRule
	}
	now := c.Now()
	x, err := c.Findings.Judge(ctx, r, now)
	s := policies.Standing{Rule: r, Fallen: x}
	if r.Budget != nil {
		s.Falls = r.Budget.Falls()
		s.Waits = r.Mode == rules.Enforce && x.Judgement.Over && x.Level < rules.Silenced && len(c.Detectors.Alarms(now)) > 0
	}
	return s, err
}

// SetRuleBack lets a rule that fell stand again in the name of by.
func (c *Core) SetRuleBack(ctx context.Context, id rules.ID, by string) (x policies.Fallen, err error) {
	r, ok := c.Rules.Load().Rule(id)
	if !ok {
		return x, ErrNoRule
	}
	err = c.act(ctx, actSetBack, map[string]string{"rule": string(id), "generation": r.Generation, "by": by}, true, func(ctx context.Context, entry string, at time.Time) error {
		x, err = c.Findings.SetBack(ctx, r, policies.Act{By: by, Entry: entry}, at)
		return err
	})
	if err == nil {
		c.findings.writing.Lock()
		delete(c.findings.spent, id)
		c.findings.writing.Unlock()
		err = c.readFalls(ctx)
	}
	return x, err
}

// MarkBenign notes in the name of by that a finding, or what a code or decision leads
// to, was no attack; counts tells whether the rule's budget counts it.
func (c *Core) MarkBenign(ctx context.Context, name, by string) (counts bool, err error) {
	c.keepFindings(ctx)
	story, err := c.Findings.Explain(ctx, name)
	if err != nil {
		return false, err
	}
	err = c.act(ctx, actBenign, map[string]string{"finding": name, "rule": string(story.Rule), "by": by}, true, func(ctx context.Context, entry string, at time.Time) error {
		counts, err = c.Findings.MarkBenign(ctx, name, policies.Act{By: by, Entry: entry}, at)
		return err
	})
	if err == nil && counts {
		c.findings.writing.Lock()
		c.findings.spentLocked(story.Rule)
		c.findings.writing.Unlock()
	}
	return counts, err
}

// Explain is what is behind a finding, a decision or a code.
func (c *Core) Explain(ctx context.Context, name string) (policies.Story, error) {
	c.keepFindings(ctx) // it may be of this second
	return c.Findings.Explain(ctx, name)
}

const (
	// undoTime bounds one undoing; undoMost what a preview counts.
	undoTime = 5 * time.Second
	undoMost = 10_000
	// undoShown is how many decisions are listed.
	undoShown = 200
)

// PreviewUndo is what undoing would lift: the live decisions that a rule made in
// [from, to).
func (c *Core) PreviewUndo(ctx context.Context, rule rules.ID, from, to time.Time) (policies.Undoing, error) {
	c.keepFindings(ctx) // those of this second count
	u, _, err := c.undoing(ctx, rule, from, to)
	return u, err
}

// Undo lifts, in the name of by, the live decisions that a rule made in [from, to), the
// newest first, each on record. It stops after five seconds: More tells that some are
// left, and doing it again goes on. What is lifted stays so.
func (c *Core) Undo(ctx context.Context, rule rules.ID, from, to time.Time, by string) (policies.Undoing, error) {
	u, ids, err := c.undoing(ctx, rule, from, to)
	if err != nil {
		return u, err
	}
	stop := time.Now().Add(undoTime)
	for _, id := range ids {
		if time.Now().After(stop) {
			u.More = true
			break
		}
		_, err := c.LiftDecision(ctx, id, by)
		if errors.Is(err, policies.ErrNotFound) {
			continue // it is over
		}
		if err != nil {
			return u, fmt.Errorf("after %d decisions of rule %s were lifted: %w", u.Lifted, rule, err)
		}
		u.Lifted++
	}
	return u, nil
}

func (c *Core) undoing(ctx context.Context, rule rules.ID, from, to time.Time) (u policies.Undoing, ids []string, err error) {
	u = policies.Undoing{Rule: rule, From: from, To: to, Subjects: map[policies.Scope]int{}, Decisions: []policies.Decision{}}
	if u.Organizations, err = c.Findings.Touched(ctx, rule, from, to); err != nil {
		return u, nil, err
	}
	type subject struct {
		scope policies.Scope
		value string
	}
	seen := map[subject]bool{}
	q := policies.DecisionQuery{Origin: policies.OriginRule, Rule: rule, State: "live", Cursor: policies.CursorAt(to), Limit: 200}
	for {
		page, next, err := c.Decisions.List(ctx, q, c.Now())
		if err != nil {
			return u, nil, err
		}
		for _, d := range page {
			if d.Created.Before(from) {
				return u, ids, nil
			}
			if len(ids) == undoMost {
				u.More = true
				return u, ids, nil
			}
			u.Live++
			ids = append(ids, d.ID)
			if s := (subject{d.Scope, d.Value}); !seen[s] {
				seen[s] = true
				u.Subjects[d.Scope]++
			}
			if len(u.Decisions) < undoShown {
				u.Decisions = append(u.Decisions, d)
			}
		}
		if next == "" {
			return u, ids, nil
		}
		q.Cursor = next
	}
}

// agreement is whether all nodes have the same rules.
type agreement struct {
	mu     sync.Mutex
	since  time.Time // of the disagreement; zero: there is none
	nodes  []string  // that have others
	told   bool
	hashed *rules.Set
	hash   string
}

// RulesHash names the rules in force; see [rules.Set.Hash].
func (c *Core) RulesHash() string {
	set := c.Rules.Load()
	c.agreement.mu.Lock()
	defer c.agreement.mu.Unlock()
	if c.agreement.hashed != set {
		c.agreement.hashed, c.agreement.hash = set, set.Hash()
	}
	return c.agreement.hash
}

// Disagreement is since when other nodes have other rules, and which, where that lasts
// longer than a minute.
func (c *Core) Disagreement(now time.Time) (since time.Time, nodes []string) {
	c.agreement.mu.Lock()
	defer c.agreement.mu.Unlock()
	if a := &c.agreement; !a.since.IsZero() && now.Sub(a.since) > agreeing {
		return a.since, slices.Clone(a.nodes)
	}
	return time.Time{}, nil
}

// agree says which rules are in force here, and hears what other nodes have.
func (c *Core) agree(ctx context.Context, now time.Time) error {
	if !c.shared || c.Rules.Load() == nil {
		return nil
	}
	own := policies.NodeRules{Node: c.node, Hash: c.RulesHash(), At: now}
	others, err := c.Findings.Agree(ctx, own, now.Add(-speaking))
	if err != nil {
		return err
	}
	var different []string
	for _, n := range others {
		if n.Hash != own.Hash {
			different = append(different, n.Node)
		}
	}
	a := &c.agreement
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nodes = different
	switch {
	case len(different) == 0:
		if a.told {
			c.Log.Info("all nodes have the same rules again", "rules", own.Hash)
		}
		a.since, a.told = time.Time{}, false
	case a.since.IsZero():
		a.since = now
	case !a.told && now.Sub(a.since) > agreeing:
		a.told = true
		c.Log.Error("nodes have different rules for more than a minute: give all the same files", "rules", own.Hash, "others", different, "since", a.since)
	}
	return nil
}
